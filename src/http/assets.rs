//! Static files, embedded in the binary: the page at `/` and the JavaScript client as a library. Hashed and compressed
//! once, at the start.

use std::collections::HashMap;
use std::hash::BuildHasher;

use flate2::Compression;
use foldhash::quality::FixedState;
use http::header::HeaderMap;

use super::content::Content;
use super::response::{JSON, Response};
use crate::config::Framers;

macro_rules! files {
    ($($path:literal $kind:ident $source:literal;)*) => {
        const FILES: &[AssetFile] =
            &[$(AssetFile { path: $path, kind: FileKind::$kind, bytes: include_bytes!($source) },)*];
    };
}

// Every file that is served: its path, its kind and its source. To add one, add a line.
files! {
    "/index.html" Page "assets/index.html";
    "/page.js" Script "assets/page.js";
    "/page.css" Style "assets/page.css";
    "/favicon.svg" Image "assets/favicon.svg";
    "/licences.txt" Text "assets/licences.txt";
    "/tickcast.js" Script "assets/tickcast.js";
    "/tickcast-stream.js" Script "assets/tickcast-stream.js";
    "/v1/openapi.json" Description "../../docs/openapi.json";
    "/v1/asyncapi.json" Description "../../docs/asyncapi.json";
}

struct AssetFile {
    path: &'static str,
    kind: FileKind,
    bytes: &'static [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Page,
    Script,
    Style,
    Image,
    Text,
    /// Of the API, for programs.
    Description,
}

impl FileKind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Page => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Image => "image/svg+xml",
            Self::Text => "text/plain; charset=utf-8",
            Self::Description => JSON,
        }
    }
}

/// Content-Security-Policy of the page and of its scripts, since a worker is bound by the policy of its own script: only
/// files of this server, nothing inline, and these frames.
fn policy(frame_ancestors: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; worker-src \
         'self'; base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}"
    )
}

/// The embedded files, ready to send.
#[derive(Debug)]
pub struct Assets(HashMap<&'static str, (FileKind, Content), foldhash::fast::RandomState>);

impl Default for Assets {
    fn default() -> Self {
        Self(FILES.iter().map(|file| (file.path, (file.kind, file.content()))).collect())
    }
}

impl Assets {
    /// The response with the file at this path; pages of `framers` may show the page in a frame.
    pub(super) fn find(&self, path: &str, headers: &HeaderMap, framers: &Framers) -> Option<Response> {
        let (kind, content) = self.0.get(if path == "/" { "/index.html" } else { path })?;
        let response = content.response(headers);
        Some(match kind {
            // Isolates the page from windows of other origins that opened it or that it opens.
            FileKind::Page => {
                let response = response.policy(policy(framers.sources()));
                let response = response.with("Cross-Origin-Opener-Policy", "same-origin");
                // For browsers that do not know the policy. It cannot list origins.
                if framers.none() { response.with("X-Frame-Options", "DENY") } else { response }
            }
            FileKind::Script => response.policy(policy(Framers::default().sources())),
            FileKind::Style | FileKind::Image | FileKind::Text | FileKind::Description => response,
        })
    }
}

impl AssetFile {
    /// The tag is the content's hash, so all machines that run this build serve the same tag.
    fn content(&self) -> Content {
        let hash = FixedState::with_seed(self.bytes.len() as u64).hash_one(self.bytes);
        Content::new(self.kind.content_type(), format!("{hash:016x}"), self.bytes, Compression::best())
    }
}
