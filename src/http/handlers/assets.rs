//! The files that a browser asks for, embedded in the binary: the page at `/`, and the client as a library. Hashed and
//! compressed once, at the start.

use std::collections::HashMap;
use std::hash::BuildHasher;

use flate2::Compression;
use foldhash::quality::FixedState;
use http::header::HeaderMap;

use crate::http::content::Content;
use crate::http::response::Response;

macro_rules! files {
    ($($name:literal $kind:ident;)*) => {
        const FILES: &[File] = &[$(File {
            path: concat!("/", $name),
            kind: Kind::$kind,
            bytes: include_bytes!(concat!("../assets/", $name)),
        },)*];
    };
}

// A file of `assets/` is served by its line here.
files! {
    "index.html" Page;
    "page.js" Script;
    "page.css" Style;
    "favicon.svg" Image;
    "licences.txt" Text;
    "tickcast.js" Script;
}

struct File {
    path: &'static str,
    kind: Kind,
    bytes: &'static [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Page,
    Script,
    Style,
    Image,
    Text,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Page => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Image => "image/svg+xml",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// What a page may do, and a worker, which is held to the policy of its own script: nothing that is not from here, and
/// nothing that stands in the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files, ready to be sent.
#[derive(Debug)]
pub struct Pages(HashMap<&'static str, (Kind, Content), foldhash::fast::RandomState>);

impl Default for Pages {
    fn default() -> Self {
        Self(FILES.iter().map(|file| (file.path, (file.kind, file.content()))).collect())
    }
}

impl Pages {
    /// The answer with the file at this path.
    pub(crate) fn find(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let (kind, content) = self.0.get(if path == "/" { "/index.html" } else { path })?;
        let response = content.response(headers);
        Some(match kind {
            // A window that opened the page, or was opened by it, has no hold on it.
            Kind::Page => response.policy(POLICY).with("Cross-Origin-Opener-Policy", "same-origin"),
            Kind::Script => response.policy(POLICY),
            Kind::Style | Kind::Image | Kind::Text => response,
        })
    }
}

impl File {
    /// The tag is the content's hash, so that it is the same on every machine that runs this build.
    fn content(&self) -> Content {
        let hash = FixedState::with_seed(self.bytes.len() as u64).hash_one(self.bytes);
        Content::new(self.kind.content_type(), format!("{hash:016x}"), self.bytes, Compression::best())
    }
}
