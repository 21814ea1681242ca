//! What may come in: the form in which files cross the wall, taken apart without I/O.
//!
//! [`crypt4gh`] is the envelope: a file is encrypted to an agent's intake key where it is made,
//! and nobody on the way, the broker included, sees more than its length.

pub mod crypt4gh;
