//! Matching of person names (PS3.4 section C.2.2.2.1, PS3.5 section 6.2.1, edition 2025c): without regard to case,
//! to trailing delimiters and to spaces around components; each component group by itself.

use std::borrow::Cow;

use super::{
    Pattern, Why,
    fold::{fold_case, fold_name, fold_part, name_words},
};

/// What a name must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameTest {
    /// One: any component group passes it. Several: each is for the group of its place.
    Groups(Vec<GroupTest>),
    /// Each of these words, folded, begins a word of the name (fuzzy semantic matching).
    Words(Vec<String>),
}

/// What a component group must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupTest {
    /// Anything.
    Universal,
    /// This text, in lower case.
    Exact(String),
    /// This pattern, in lower case.
    Wildcard {
        /// For groups in lower case.
        pattern: Pattern,
        /// With fuzzy semantic matching also for groups folded as by [`fold_name`].
        folded: Option<Pattern>,
    },
}

impl NameTest {
    pub(super) fn parse(value: &str, fuzzy: bool) -> Result<Self, Why> {
        let wild = value.contains(['*', '?']);
        if fuzzy && !wild {
            let words = name_words(value);
            return if words.is_empty() { Err(Why::Blank) } else { Ok(Self::Words(words)) };
        }
        let mut groups: Vec<GroupTest> = value.split('=').map(|group| GroupTest::parse(group, fuzzy)).collect();
        while groups.len() > 1 && groups.last() == Some(&GroupTest::Universal) {
            groups.pop();
        }
        // `*=*` asks for nothing; carets and spaces alone ask for nothing that could be matched.
        match groups.as_slice() {
            [GroupTest::Universal] if !wild => Err(Why::Blank),
            _ => Ok(Self::Groups(groups)),
        }
    }

    pub(super) fn is_universal(&self) -> bool {
        matches!(self, Self::Groups(groups) if groups.as_slice() == [GroupTest::Universal])
    }

    /// Whether one stored name passes.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Words(words) => {
                let found = name_words(name);
                words.iter().all(|word| found.iter().any(|f| f.starts_with(word.as_str())))
            }
            Self::Groups(groups) => match groups.as_slice() {
                [only] => name.split('=').any(|group| only.matches(group)),
                several => {
                    let mut found = name.split('=');
                    several.iter().all(|test| test.matches(found.next().unwrap_or_default()))
                }
            },
        }
    }
}

impl GroupTest {
    fn parse(group: &str, fuzzy: bool) -> Self {
        let plain = normal(group);
        if plain.bytes().all(|b| b == b'*') {
            return Self::Universal;
        }
        if !group.contains(['*', '?']) {
            return Self::Exact(fold_case(&plain).into_owned());
        }
        // Delimiters at the end of a pattern stay: `A*^` asks for a component behind the star.
        let pattern = fold_case(&trim_components(group)).into_owned();
        let folded = fuzzy.then(|| {
            let mut folded = String::new();
            for part in group.split_inclusive(['*', '?']) {
                let (literal, card) = match part.char_indices().next_back() {
                    Some((at, '*' | '?')) => part.split_at(at),
                    _ => (part, ""),
                };
                folded.push_str(&fold_part(literal));
                folded.push_str(card);
            }
            Pattern::new(folded.trim().to_owned())
        });
        Self::Wildcard { pattern: Pattern::new(pattern), folded }
    }

    fn matches(&self, group: &str) -> bool {
        match self {
            Self::Universal => true,
            Self::Exact(text) => fold_case(&normal(group)) == text.as_str(),
            Self::Wildcard { pattern, folded } => {
                let plain = normal(group);
                if plain.is_empty() {
                    return false;
                }
                let plain = fold_case(&plain);
                // A name without the trailing components that the pattern names has them empty.
                let carets = |text: &str| text.bytes().filter(|b| *b == b'^').count();
                let missing = carets(pattern.as_str()).saturating_sub(carets(&plain));
                pattern.matches(&plain)
                    || missing > 0 && pattern.matches(&(plain.into_owned() + &"^".repeat(missing)))
                    || folded.as_ref().is_some_and(|folded| folded.matches(&fold_name(group)))
            }
        }
    }

    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Universal => "",
            Self::Exact(text) => text,
            // A match of the folded pattern need not begin as this one does: there the fold of both is the same.
            Self::Wildcard { pattern, .. } => pattern.prefix(),
        }
    }

    pub(super) fn trigrams(&self) -> Vec<String> {
        match self {
            Self::Universal => Vec::new(),
            Self::Exact(text) => super::fold::trigrams(&fold_name(text)),
            Self::Wildcard { pattern, .. } => pattern.trigrams(),
        }
    }
}

/// Without spaces around components, and without empty components at the end.
fn normal(group: &str) -> Cow<'_, str> {
    match trim_components(group) {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches('^')),
        Cow::Owned(text) => Cow::Owned(text.trim_end_matches('^').to_owned()),
    }
}

fn trim_components(group: &str) -> Cow<'_, str> {
    let spaces = [' ', '\0'];
    let group = group.trim_matches(spaces);
    if !group.contains(" ^") && !group.contains("^ ") {
        return Cow::Borrowed(group);
    }
    let parts: Vec<&str> = group.split('^').map(|part| part.trim_matches(spaces)).collect();
    Cow::Owned(parts.join("^"))
}
