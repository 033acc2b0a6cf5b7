//! Text for stdout and stderr at the start and the end. A full pipe without a reader must not keep the server from serving
//! or ending: after [`TIMEOUT`] the text is left to a thread that ends with the process.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crossbeam::channel::bounded;

const TIMEOUT: Duration = Duration::from_secs(1);

/// Writes the text to stdout, if it can be written.
pub fn print(text: String) {
    write(std::io::stdout(), text);
}

/// Writes the text to stderr, if it can be written.
pub fn print_error(text: String) {
    write(std::io::stderr(), text);
}

fn write(mut stream: impl Write + Send + 'static, text: String) {
    let (done, written) = bounded::<()>(0);
    let write = move || {
        let _done = done;
        // A closed stream is no reason not to serve.
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    };
    if thread::Builder::new().name("output".to_owned()).spawn(write).is_ok() {
        // Ends by the drop of the sender.
        let _ = written.recv_timeout(TIMEOUT);
    }
}
