//! The progress bar on stderr; nothing where stderr is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar for one stage after another, erased at the end.
#[derive(Debug)]
pub struct StageBar {
    bar: ProgressBar,
}

impl StageBar {
    /// An empty bar.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:<17} {bar:40} {percent:>3} %  {msg}");
        bar.set_style(style.expect("a valid template"));
        Self { bar }
    }

    /// Begins a stage of this length.
    pub fn begin(&self, stage: &'static str, length: u64) {
        self.bar.set_prefix(stage);
        self.bar.set_length(length);
        self.bar.set_message("");
        self.bar.set_position(0);
    }

    /// Sets how much of the stage is done.
    pub fn set(&self, done: u64, message: &str) {
        self.bar.set_message(message.to_owned());
        self.bar.set_position(done);
    }
}

impl Drop for StageBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
