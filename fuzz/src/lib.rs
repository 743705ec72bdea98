//! What the fuzz targets run: the same functions as `tests/fuzz_corpus.rs`.

#[path = "../../tests/fuzz/mod.rs"]
pub mod bodies;
