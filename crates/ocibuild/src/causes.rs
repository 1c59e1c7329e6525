//! An error and its causes as text, where only text can pass: to another process, in an
//! event, in a log.

/// Gives an error with its causes on one line; a cause that the text ends with already
/// is not repeated.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
