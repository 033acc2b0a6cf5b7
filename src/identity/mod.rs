//! Who a client is and what it may see: users, their rights, and rights that were withdrawn. Pure values, without tokens,
//! keys and connections: those are in [`crate::access`].
//!
//! What always holds:
//! * What no rule allows is denied, and a rule that denies wins over all that allow.
//! * Rights are compared in full: two clients share the work of a right only where all their rules are the same.
//! * Private symbols, `user/USER/…`, are their user's. No rule gives them, and no shorter pattern covers them.

mod contract;
pub(crate) mod object;
mod principal;
mod private;
mod revocation;
mod rights;
mod share;
mod text;

pub use self::contract::Contract;
pub use self::principal::{Claim, Kind, Principal, Source, Verdict};
pub use self::private::{PRIVATE_FOLDER, owner_folder};
pub use self::revocation::{Revocation, Revocations};
pub use self::rights::{Depth, Extent, Grant, Hidden, Rights, Rule, Terms};
pub use self::share::UserShare;
pub use self::text::{AllowText, DenyText, Product, Products, RightsText};
