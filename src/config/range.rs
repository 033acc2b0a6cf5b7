//! The range of a setting that is a number.

use super::ConfigError;

/// The number as given, or its default.
///
/// # Errors
/// It is out of the range.
pub(super) fn within<T: PartialOrd + std::fmt::Display>(
    setting: &'static str,
    given: Option<T>,
    default: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    match given {
        None => Ok(default),
        Some(given) if given >= least && given <= most => Ok(given),
        Some(given) => {
            let problem = format!("{given} is out of range: expected {least} to {most}");
            Err(ConfigError::Value { setting, problem })
        }
    }
}
