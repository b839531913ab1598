//! The pointer: which generation serves, and which others there are.

use bytes::Bytes;
use cairn_archive::digest::FOLD_VERSION;
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{Generation, IndexStore};

/// What the index store's pointer says: a line of text, `1 serving fold-version next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// The generation that answers queries.
    pub(crate) serving: Generation,
    /// The fold version that it was filled under.
    pub(crate) fold_version: u32,
    /// The number of the next generation to be made: every lower one but `serving` is waste, or being filled.
    pub(crate) next: Generation,
}

impl Pointer {
    fn encode(self) -> Bytes {
        format!("1 {} {} {}", self.serving.0, self.fold_version, self.next.0).into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let read = || {
            let mut numbers = std::str::from_utf8(bytes).ok()?.split(' ').map(|number| number.parse::<u32>().ok());
            let mut number = || numbers.next().flatten();
            (number()? == 1).then_some(())?;
            Some(Self { serving: Generation(number()?), fold_version: number()?, next: Generation(number()?) })
        };
        read().ok_or_else(|| Error::new(ErrorKind::Internal, "index pointer is of another version"))
    }

    /// Reads the pointer; an index that has none begins with generation 1.
    pub(crate) async fn read_or_create(store: &dyn IndexStore) -> Result<Self, Error> {
        let found = store.pointer().await?;
        if !found.is_empty() {
            return Self::decode(&found);
        }
        let first = Self { serving: Generation(1), fold_version: FOLD_VERSION, next: Generation(2) };
        if store.compare_and_set_pointer(&[], first.encode()).await? {
            return Ok(first);
        }
        Self::decode(&store.pointer().await?)
    }

    /// Takes the next number for a new generation.
    pub(crate) async fn take_next(self, store: &dyn IndexStore) -> Result<(Generation, Self), Error> {
        let after = Self { next: Generation(self.next.0 + 1), ..self };
        self.replace(after, store).await?;
        Ok((self.next, after))
    }

    /// Lets another generation serve.
    pub(crate) async fn serve(self, generation: Generation, store: &dyn IndexStore) -> Result<Self, Error> {
        let after = Self { serving: generation, fold_version: FOLD_VERSION, ..self };
        self.replace(after, store).await?;
        Ok(after)
    }

    async fn replace(self, after: Self, store: &dyn IndexStore) -> Result<(), Error> {
        if store.compare_and_set_pointer(&self.encode(), after.encode()).await? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "another rebuild changed the index pointer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_reads_back() {
        let pointer = Pointer { serving: Generation(3), fold_version: 1, next: Generation(9) };
        assert_eq!(Pointer::decode(&pointer.encode()).expect("reads"), pointer);
        for bad in ["", "2 3 1 9", "1 3 1", "1 x 1 9"] {
            assert!(Pointer::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
