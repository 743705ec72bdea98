//! Bytes that may hold tokens.

use std::io;

use zeroize::Zeroizing;

/// A buffer that is wiped when dropped, and leaves no copy behind as it grows.
pub(crate) struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn extend(&mut self, more: &[u8]) {
        let length = self.0.len() + more.len();
        if length > self.0.capacity() {
            // By hand, since a buffer that grows by itself leaves an unwiped copy behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(length.max(self.0.capacity() * 2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(more);
    }

    pub(crate) fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl io::Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_piece_by_piece_is_there_whole_however_often_it_grew() {
        let mut wiped = Wiped::with_capacity(2);
        let pieces: Vec<Vec<u8>> = (1..=40_u8).map(|length| vec![length; usize::from(length)]).collect();
        for piece in &pieces {
            wiped.extend(piece);
        }
        assert_eq!(wiped.len(), pieces.iter().map(Vec::len).sum::<usize>());
        assert_eq!(*wiped.into_inner(), pieces.concat());
    }
}
