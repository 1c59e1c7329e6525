//! Slash-separated paths as text: the cleaning that Dockerfile instructions and
//! ignore files rely on. Nothing here looks at a file system.

/// Removes empty and `.` components and resolves `..` by text alone.
///
/// A rooted path never leaves its root; the empty path becomes `.`. This is the
/// result of Go's `path.Clean`, which the format is defined by.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Gives the last component of a path: `/` of the root and `.` of nothing.
pub fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (trimmed.is_empty(), path.is_empty()) {
        (true, true) => ".",
        (true, false) => "/",
        _ => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_the_format_asks() {
        let table = [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/./b", "a/b"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("../../a/..", "../.."),
            ("/../a", "/a"),
            ("/a/../../b", "/b"),
            ("./a", "a"),
            ("a/b/../../..", ".."),
        ];
        for (input, expected) in table {
            assert_eq!(clean(input), expected, "{input:?}");
        }
    }

    #[test]
    fn finds_the_last_component() {
        for (input, expected) in [
            ("", "."),
            ("/", "/"),
            ("a", "a"),
            ("/a/b/", "b"),
            ("a/b", "b"),
        ] {
            assert_eq!(base(input), expected, "{input:?}");
        }
    }
}
