//! What a user has a contract for: what is counted and reported, beside the rights that follow from it.

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contract {
    /// Whether the user is a professional; `None`: the token does not say.
    pub professional: Option<bool>,
    /// Names of products, as the credential has them.
    pub products: Box<[Box<str>]>,
    /// Sessions that the user may have at a time; `None`: as many as the server permits.
    pub sessions_max: Option<u32>,
}
