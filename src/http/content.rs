//! Content that many clients get alike: shared bytes, plain and gzip, compressed once. Each encoding has a strong `ETag` of
//! its own; a client that has it gets 304.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap};

use super::request::tokens;
use super::response::Response;

/// A resource in its two encodings.
#[derive(Clone, Debug)]
pub(super) struct Content {
    content_type: &'static str,
    /// Without its quotes.
    tag: String,
    plain: Bytes,
    /// `None` if it is not shorter.
    gzip: Option<Bytes>,
}

impl Content {
    /// Compresses the bytes. `tag` is visible ASCII without quotes and changes with the bytes.
    pub(super) fn new(content_type: &'static str, tag: String, plain: impl Into<Bytes>, level: Compression) -> Self {
        let plain = plain.into();
        let gzip = Some(gzipped(&plain, level)).filter(|gzip| gzip.len() < plain.len());
        Self { content_type, tag, plain, gzip: gzip.map(Bytes::from) }
    }

    /// The encoding that a request with these headers prefers, or 304 if the client has it.
    pub(super) fn response(&self, headers: &HeaderMap) -> Response {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(headers));
        let tag = if gzip.is_some() { format!("{}-gzip", self.tag) } else { self.tag.clone() };
        let response = match gzip {
            _ if matches_tag(headers, &tag) => Response::not_modified(),
            Some(gzip) => Response::new(self.content_type, gzip.clone()).with("Content-Encoding", "gzip"),
            None => Response::new(self.content_type, self.plain.clone()),
        };
        let response = response.shared().with("ETag", format!("\"{tag}\""));
        if self.gzip.is_some() { response.vary("Accept-Encoding") } else { response }
    }
}

fn gzipped(plain: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to a Vec cannot fail")
}

/// True if the client's `If-None-Match` lists this tag, given without its quotes.
pub(super) fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    //= RFC 9110 section 13.1.2
    //# "A recipient MUST use the weak comparison function when comparing entity tags for If-None-Match"
    let same = |given: &[u8]| {
        let strong = given.strip_prefix(b"W/").unwrap_or(given);
        strong.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) == Some(tag.as_bytes())
    };
    // The server's tags have no comma, so the list can be split at every comma.
    tokens(headers, header::IF_NONE_MATCH).any(|given| given == b"*" || same(given))
}

/// True if the client accepts gzip and does not prefer plain bytes.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut others) = (None, None, None);
    for element in tokens(headers, header::ACCEPT_ENCODING) {
        let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1000);
        match coding.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => gzip = Some(quality),
            b"identity" => identity = Some(quality),
            b"*" => others = Some(quality),
            _ => {}
        }
    }
    //= RFC 9110 section 12.5.3
    //# "The asterisk "*" symbol in an Accept-Encoding field matches any available content coding not explicitly listed
    //# in the field."
    let gzip = gzip.or(others).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// The weight of a parameter `q=0.5`, in thousandths; 0 if it is invalid, `None` for another parameter.
fn quality(parameter: &[u8]) -> Option<u32> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let value = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<f32>().ok());
    Some(value.filter(|value| (0.0..=1.0).contains(value)).map_or(0, |value| (value * 1000.0).round() as u32))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (header::HeaderName::from_static(name), HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn gzip_is_sent_unless_the_client_prefers_plain_bytes() {
        for accepted in [
            "gzip",
            "gzip, deflate, br, zstd",
            "GZIP;q=0.001",
            "x-gzip",
            "*",
            "br, *;q=0.1",
            "identity;q=0.5, gzip;q=0.5",
            "identity;q=0, *",
            "gzip ; q=1.000",
        ] {
            assert!(accepts_gzip(&headers("accept-encoding", &[accepted])), "{accepted}");
        }
        for plain in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "gzip;q=0.000, *",
            "*;q=0",
            "gzip;q=0.4, identity;q=0.5",
            "gzip;q=2",
            "gzip;q=-1",
            "gzip;q=NaN",
            "gzip;q=",
            "gzipped",
        ] {
            assert!(!accepts_gzip(&headers("accept-encoding", &[plain])), "{plain}");
        }
        assert!(accepts_gzip(&headers("accept-encoding", &["br", "gzip"])), "lines are one list");
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_tag_matches_in_a_list_strong_or_weak() {
        for same in ["\"a1\"", "W/\"a1\"", "\"x\", W/\"a1\" ,\"y\"", "*"] {
            assert!(matches_tag(&headers("if-none-match", &[same]), "a1"), "{same}");
        }
        assert!(matches_tag(&headers("if-none-match", &["\"x\"", "\"a1\""]), "a1"), "lines are one list");
        for other in ["\"a1-gzip\"", "a1", "\"a1", "w/\"a1\"", "\"\"", "", "\"*\""] {
            assert!(!matches_tag(&headers("if-none-match", &[other]), "a1"), "{other}");
        }
    }

    #[test]
    fn incompressible_content_has_one_encoding_and_no_vary() {
        let content = Content::new("text/plain", "a".to_owned(), "short", Compression::best());
        let head = content.response(&headers("accept-encoding", &["gzip"])).head();
        assert!(head.contains("ETag: \"a\"\r\n") && !head.contains("Vary") && !head.contains("gzip"), "{head}");
    }
}
