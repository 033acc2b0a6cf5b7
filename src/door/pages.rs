//! The page at `/`, embedded in the binary.

use super::http::Response;

/// The page's file at this path.
pub(super) fn find(path: &str) -> Option<Response> {
    Some(match path {
        "/" | "/index.html" => Response::new("text/html; charset=utf-8", &include_bytes!("pages/index.html")[..]),
        "/app.js" => Response::new("text/javascript; charset=utf-8", &include_bytes!("pages/app.js")[..]),
        "/wire.js" => Response::new("text/javascript; charset=utf-8", &include_bytes!("pages/wire.js")[..]),
        "/style.css" => Response::new("text/css; charset=utf-8", &include_bytes!("pages/style.css")[..]),
        "/favicon.svg" => Response::new("image/svg+xml", &include_bytes!("pages/favicon.svg")[..]),
        _ => return None,
    })
}
