//! Documents of lines: a title, then on each line a name, a space and a value.

use super::Unproven;

/// The lines after the title.
pub(super) struct Lines<'a> {
    lines: std::iter::Peekable<std::str::Split<'a, char>>,
    what: &'static str,
}

impl<'a> Lines<'a> {
    /// Of a document with this title, whose last line is ended too.
    pub(super) fn of(text: &'a str, title: &str, what: &'static str) -> Result<Self, Unproven> {
        let text = text.strip_prefix(title).and_then(|rest| rest.strip_prefix('\n'));
        let lines = text.and_then(|text| text.strip_suffix('\n')).ok_or(Unproven::Malformed(what))?;
        Ok(Self { lines: lines.split('\n').peekable(), what })
    }

    /// The value of the next line, if that has this name.
    pub(super) fn next_if(&mut self, name: &str) -> Option<&'a str> {
        let value = |line: &&'a str| line.strip_prefix(name)?.strip_prefix(' ');
        let found = self.lines.peek().and_then(value)?;
        self.lines.next();
        Some(found)
    }

    /// The value of the next line, which must have this name.
    pub(super) fn next(&mut self, name: &str) -> Result<&'a str, Unproven> {
        self.next_if(name).ok_or(Unproven::Malformed(self.what))
    }

    /// The same as a number or another type.
    pub(super) fn parse<T: std::str::FromStr>(&mut self, name: &str) -> Result<T, Unproven> {
        self.next(name)?.parse().map_err(|_| Unproven::Malformed(self.what))
    }

    /// There must be no line more.
    pub(super) fn end(&mut self) -> Result<(), Unproven> {
        self.lines.next().map_or(Ok(()), |_| Err(Unproven::Malformed(self.what)))
    }
}
