//! The records, called as the gate calls them. The suite takes any store, so that another database
//! is one more line in `suite!`.

mod durability;
mod files;
mod suite;
