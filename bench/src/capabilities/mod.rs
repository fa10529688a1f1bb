//! What capabilities cost: charges, look-ups of handles, objects that come into a space and go.
//!
//! Owns what each row does and with what. Every row is a [`contest`](crate::pager::contest), as those of the pager are.
//! Outside: what is printed ([`crate::report`]).

pub mod handles;
pub mod objects;
