//! Value Representations (PS3.5 section 6.2, edition 2025c).

use std::fmt;

macro_rules! value_representations {
    ($($name:ident = $doc:literal),+ $(,)?) => {
        /// A Value Representation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(clippy::upper_case_acronyms, reason = "the Standard's own two letters")]
        pub enum Vr {
            $(#[doc = $doc] $name,)+
        }

        impl Vr {
            /// Every VR, in alphabetical order.
            pub const ALL: &[Vr] = &[$(Vr::$name,)+];

            /// The VR written with these two letters; `None` for any other pair.
            pub const fn from_bytes(code: [u8; 2]) -> Option<Self> {
                $(const $name: [u8; 2] = two(stringify!($name));)+
                match code {
                    $($name => Some(Vr::$name),)+
                    _ => None,
                }
            }

            /// The two letters.
            pub const fn as_str(self) -> &'static str {
                match self { $(Vr::$name => stringify!($name),)+ }
            }
        }
    };
}

const fn two(name: &str) -> [u8; 2] {
    [name.as_bytes()[0], name.as_bytes()[1]]
}

value_representations! {
    AE = "Application Entity", AS = "Age String", AT = "Attribute Tag", CS = "Code String", DA = "Date",
    DS = "Decimal String", DT = "Date Time", FD = "Floating Point Double", FL = "Floating Point Single",
    IS = "Integer String", LO = "Long String", LT = "Long Text", OB = "Other Byte", OD = "Other Double",
    OF = "Other Float", OL = "Other Long", OV = "Other 64-bit Very Long", OW = "Other Word", PN = "Person Name",
    SH = "Short String", SL = "Signed Long", SQ = "Sequence of Items", SS = "Signed Short", ST = "Short Text",
    SV = "Signed 64-bit Very Long", TM = "Time", UC = "Unlimited Characters", UI = "Unique Identifier",
    UL = "Unsigned Long", UN = "Unknown", UR = "Universal Resource Identifier", US = "Unsigned Short",
    UT = "Unlimited Text", UV = "Unsigned 64-bit Very Long",
}

impl Vr {
    /// Whether Explicit VR encodings write two reserved bytes and a 32-bit length (PS3.5 section 7.1.2).
    pub const fn has_long_length(self) -> bool {
        use Vr::*;
        matches!(self, OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV)
    }

    /// Whether Specific Character Set governs the value (PS3.5 section 6.1.2.3).
    pub const fn is_charset_text(self) -> bool {
        use Vr::*;
        matches!(self, LO | LT | PN | SH | ST | UC | UT)
    }

    /// Whether the value is text in any repertoire, the default one included.
    pub const fn is_text(self) -> bool {
        use Vr::*;
        self.is_charset_text() || matches!(self, AE | AS | CS | DA | DS | DT | IS | TM | UI | UR)
    }

    /// Whether a backslash separates values (PS3.5 section 6.4): not in ST, LT, UT, UR nor in binary forms.
    pub const fn is_multi_valued_text(self) -> bool {
        use Vr::*;
        self.is_text() && !matches!(self, ST | LT | UT | UR)
    }

    /// Bytes of one value in the fixed-size binary forms; the unit of byte order in the `O*` forms.
    pub const fn unit_bytes(self) -> usize {
        use Vr::*;
        match self {
            AT | OW | SS | US => 2,
            FL | OF | OL | SL | UL => 4,
            FD | OD | OV | SV | UV => 8,
            _ => 1,
        }
    }
}

impl fmt::Display for Vr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        assert_eq!(Vr::ALL.len(), 34);
        for vr in Vr::ALL {
            let code = vr.as_str().as_bytes();
            assert_eq!(Vr::from_bytes([code[0], code[1]]), Some(*vr));
        }
        assert_eq!(Vr::from_bytes(*b"??"), None);
    }
}
