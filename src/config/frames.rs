//! Origins of pages that may show the server's page in a frame.

use std::fmt;

use super::Origin;

/// The pages that may frame the server's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framers {
    /// In the form of the policy `frame-ancestors`: `'none'`, `*`, or origins between blanks.
    sources: String,
}

impl Default for Framers {
    fn default() -> Self {
        Self { sources: "'none'".to_owned() }
    }
}

impl Framers {
    /// Parses a list such as `https://example.com,http://localhost:3000`, or `*`, or `none`.
    ///
    /// # Errors
    /// The invalid part, and what was expected.
    pub fn parse(list: &str) -> Result<Self, String> {
        match list.trim() {
            "none" => return Ok(Self::default()),
            "*" => return Ok(Self { sources: "*".to_owned() }),
            _ => {}
        }
        let one = |text: &str| {
            // A page without an origin cannot be named in the policy.
            Origin::parse(text.trim()).filter(is_source).map(|origin| origin.to_string()).ok_or_else(|| {
                format!(
                    "invalid origin {:?}: expected a list like https://example.com,http://localhost:3000 without paths, or \
                     * for all, or none",
                    text.trim()
                )
            })
        };
        let sources = list.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { sources: sources.join(" ") })
    }

    /// True if no page may.
    pub fn none(&self) -> bool {
        self.sources == "'none'"
    }

    /// The value of `frame-ancestors`.
    pub fn sources(&self) -> &str {
        &self.sources
    }
}

/// True for an origin of web pages, without a sign that ends a directive of the policy.
fn is_source(origin: &Origin) -> bool {
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    let text = origin.to_string();
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| host.bytes().all(is_host))
}

impl fmt::Display for Framers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.none() { "none" } else { &self.sources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_the_sources_of_the_policy() {
        for (list, sources) in [
            ("none", "'none'"),
            (" * ", "*"),
            ("https://Example.com:443, http://localhost:3000", "https://example.com http://localhost:3000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(Framers::parse(list).expect(list).sources(), sources, "{list}");
        }
        assert!(Framers::default().none() && !Framers::parse("*").expect("all").none());
        assert_eq!(Framers::default().to_string(), "none");
    }

    #[test]
    fn what_is_no_origin_of_a_page_is_refused() {
        for wrong in [
            "",
            "example.com",
            "null",
            "https://example.com/app",
            "*,https://a.example",
            "https://*.example.com",
            "chrome-extension://abc",
            "https://a.example;script-src",
            "https://a.example https://b.example",
            "'self'",
        ] {
            let problem = Framers::parse(wrong).expect_err(wrong);
            assert!(problem.contains("invalid origin") && problem.contains("https://example.com"), "{problem}");
        }
    }
}
