//! Invented people. Names in several scripts, each with the character set that carries it.

use cairn_dicom::CharacterSet;

/// An invented person.
#[derive(Debug)]
pub(crate) struct Person {
    /// PatientName; the given name says that it is synthetic.
    pub(crate) name: &'static str,
    /// Specific Character Set value that carries the name.
    pub(crate) character_set: &'static str,
    pub(crate) birth_date: &'static str,
    pub(crate) sex: &'static str,
}

impl Person {
    pub(crate) fn set(&self) -> CharacterSet {
        CharacterSet::parse(self.character_set.as_bytes(), CharacterSet::DEFAULT).0
    }
}

const fn person(
    name: &'static str,
    character_set: &'static str,
    birth_date: &'static str,
    sex: &'static str,
) -> Person {
    Person { name, character_set, birth_date, sex }
}

pub(crate) const PEOPLE: &[Person] = &[
    person("ALDERAAN^SYNTHETIC", "", "19610214", "F"),
    person("BRANDYBUCK^SYNTHETIC^T", "", "19781103", "M"),
    person("MÜLLER-LÜDENSCHEIDT^SYNTHETIC", "ISO_IR 100", "19550630", "M"),
    person("ДОСТОЕВСКИЙ^SYNTHETIC", "ISO_IR 144", "19811111", "M"),
    person("ΠΑΠΑΔΟΠΟΥΛΟΥ^SYNTHETIC", "ISO_IR 126", "19900321", "F"),
    person("Yamada^SYNTHETIC=山田^太郎=やまだ^たろう", "\\ISO 2022 IR 87", "19720909", "M"),
    person("Hong^SYNTHETIC=洪^吉洞=홍^길동", "\\ISO 2022 IR 149", "19660101", "M"),
    person("Wang^SYNTHETIC=王^小东", "GB18030", "19880808", "M"),
    person("ŠIMŮNEK^SYNTHETIC", "ISO_IR 101", "19450505", "M"),
    person("Núñez^SYNTHETIC", "ISO_IR 192", "20010417", "F"),
    person("O'SHAUGHNESSY^SYNTHETIC", "", "19330712", "F"),
    person("ÖZTÜRK^SYNTHETIC", "ISO_IR 148", "19790223", "F"),
];
