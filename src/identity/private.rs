//! Private symbols: `user/USER/…` belongs to a user.

/// What all private symbols begin with.
pub const PRIVATE_FOLDER: &str = "user/";

/// `user/USER/` at the beginning of a private symbol or pattern; `None` for others. The whole of the private folder, and
/// the beginning of a user's name, have no owner, and give an empty text.
pub fn owner_folder(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(PRIVATE_FOLDER)?;
    Some(rest.find('/').map_or("", |end| &text[..PRIVATE_FOLDER.len() + end + 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_of_a_private_symbol_is_that_of_its_user() {
        for (text, folder) in [
            ("user/u-17/orders", Some("user/u-17/")),
            ("user/u-17/", Some("user/u-17/")),
            ("user/u-17/a/b", Some("user/u-17/")),
            ("user/u-17", Some("")),
            ("user/", Some("")),
            ("user//x", Some("user//")),
            ("user", None),
            ("users/a/b", None),
            ("BTC-USD", None),
        ] {
            assert_eq!(owner_folder(text), folder, "{text}");
        }
    }
}
