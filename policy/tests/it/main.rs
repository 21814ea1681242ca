//! Policy from outside: what is permitted, and everything that must not be.

mod channels;
mod conditions;
mod differential;
mod matrix;
mod pitfalls;
mod recordings;
mod sentences;
mod world;
