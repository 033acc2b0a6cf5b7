//! Parameters of `--feed` arguments: `key=value` pairs, and values within bounds. Each error names what is allowed.

/// Splits `key=value` pairs at `separator`, and calls `set` with each; the error of `set` names what is allowed.
pub fn each_pair(
    pairs: &str,
    separator: char,
    mut set: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    for pair in pairs.split(separator).filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("invalid parameter {pair:?}: expected key=value"))?;
        set(key, value)?;
    }
    Ok(())
}

/// A number within bounds, or an error that names the bounds.
pub fn number_within<T>(key: &str, value: &str, least: T, most: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match value.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("{key}: invalid value {value:?}: expected {least} to {most}")),
    }
}
