//! The progress bar on stderr; nothing where stderr is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar that is used for one stage after another, and wiped at the end.
#[derive(Debug)]
pub struct StageBar {
    bar: ProgressBar,
}

impl StageBar {
    /// Nothing to show yet.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:<17} {bar:40} {percent:>3} %  {msg}");
        bar.set_style(style.expect("the template is one"));
        Self { bar }
    }

    /// A stage of this length begins.
    pub fn begin(&self, stage: &'static str, length: u64) {
        self.bar.set_prefix(stage);
        self.bar.set_length(length);
        self.bar.set_message("");
        self.bar.set_position(0);
    }

    /// How far the stage is.
    pub fn at(&self, position: u64, message: &str) {
        self.bar.set_message(message.to_owned());
        self.bar.set_position(position);
    }
}

impl Drop for StageBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
