//! The parse tree of a file before anything is known about instructions, and its text
//! in the notation of BuildKit's parser tests: `(run ["--mount=x"] "make")`.
//!
//! Unknown instructions, missing stages and wrong arguments are no errors here; what is
//! one is what BuildKit's parser, not its builder, refuses.

use serde::Serialize;

use super::ast::{Command, Keyword};
use super::error::{ParseError, ParseErrorKind};
use super::lines::Fragment;
use super::parse::{Raw, arguments, raw_lines};
use super::quote::{quote, quote_list};
use super::span::{LineStarts, Span};

type Result<T> = std::result::Result<T, ParseError>;

/// The most ONBUILDs in one another; none of them but the first can ever fire.
const MAX_DEPTH: usize = 64;

/// An instruction of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The keyword in lower case.
    pub keyword: String,
    /// The flags, without quotes and escapes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The arguments as the parser cuts them; quotes and variables are as written.
    pub arguments: Vec<String>,
    /// The instruction behind ONBUILD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Box<Node>>,
    /// The first line, from one.
    pub line: usize,
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({}", self.keyword)?;
        if !self.flags.is_empty() {
            write!(f, " {}", quote_list(&self.flags))?;
        }
        for argument in &self.arguments {
            write!(f, " {}", quote(argument))?;
        }
        if let Some(trigger) = &self.trigger {
            write!(f, " {trigger}")?;
        }
        f.write_str(")")
    }
}

/// Reads the tree of a Dockerfile, a node for each instruction.
///
/// ```
/// # use ocibuild::dockerfile::parse_tree;
/// let tree = parse_tree("FROM x\nONBUILD RUN a b\n")?;
/// assert_eq!(tree[1].to_string(), r#"(onbuild (run "a b"))"#);
/// # Ok::<(), ocibuild::dockerfile::ParseError>(())
/// ```
pub fn parse_tree(source: &str) -> Result<Vec<Node>> {
    let lines = LineStarts::new(source);
    let mut nodes = Vec::new();
    raw_lines(source, &mut |raw| {
        nodes.push(node(raw, &lines, 0)?);
        Ok(())
    })?;
    Ok(nodes)
}

fn node(raw: &Raw<'_>, lines: &LineStarts, depth: usize) -> Result<Node> {
    let keyword = Keyword::parse(raw.keyword.as_str());
    let inner = raw.inner().filter(|_| keyword == Some(Keyword::Onbuild));
    if depth == MAX_DEPTH {
        let kind = ParseErrorKind::TriggerNotAllowed(Keyword::Onbuild);
        return Err(ParseError::new(kind, raw.keyword.span()));
    }
    let trigger = inner
        .map(|inner| node(&inner, lines, depth + 1))
        .transpose()?;
    let Span { start, .. } = raw.keyword.span();
    Ok(Node {
        keyword: raw.keyword.as_str().to_lowercase(),
        flags: raw.flags.clone(),
        arguments: match keyword {
            Some(keyword) => words(keyword, raw)?,
            // Nobody knows how its arguments would be read.
            None => vec![String::new()],
        },
        trigger: trigger.map(Box::new),
        line: lines.line(start),
    })
}

/// Gives the arguments as the parser cuts them.
fn words(keyword: Keyword, raw: &Raw<'_>) -> Result<Vec<String>> {
    let rest = raw.arguments;
    let text = |fragment: &Fragment<'_>| fragment.as_str().to_owned();
    if rest.as_str().is_empty() {
        return Ok(Vec::new());
    }
    Ok(match keyword {
        Keyword::Onbuild => Vec::new(),
        Keyword::Add | Keyword::Copy | Keyword::Volume => {
            let list = arguments::list(keyword, rest)?;
            list.into_iter().map(|word| word.text).collect()
        }
        Keyword::Cmd | Keyword::Entrypoint | Keyword::Run | Keyword::Shell => {
            command(arguments::command(keyword, rest)?)
        }
        Keyword::Expose | Keyword::From => rest.split().iter().map(text).collect(),
        Keyword::Env | Keyword::Label => arguments::key_values_raw(keyword, rest, raw.escape)?
            .into_iter()
            .flat_map(|pair| {
                let separator = if pair.is_legacy { "" } else { "=" };
                [pair.key.text, pair.value.text, separator.to_owned()]
            })
            .collect(),
        Keyword::Arg => arguments::quoted_words(rest, raw.escape)
            .iter()
            .map(text)
            .collect(),
        Keyword::Healthcheck => {
            let (kind, rest) = rest.split_first();
            let mut words = vec![text(&kind)];
            if let Some(rest) = rest.filter(|rest| !rest.as_str().is_empty()) {
                words.extend(command(arguments::command(keyword, rest)?));
            }
            words
        }
        Keyword::Maintainer | Keyword::Stopsignal | Keyword::User | Keyword::Workdir => {
            vec![text(&rest)]
        }
    })
}

fn command(command: Command) -> Vec<String> {
    match command {
        Command::Shell(text) => vec![text.text],
        Command::Exec(words) => words.into_iter().map(|word| word.text).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_that_of_buildkits_parser() {
        let table = [
            ("FROM ubuntu:14.04", r#"(from "ubuntu:14.04")"#),
            ("run echo \"x\" \\\n  y", r#"(run "echo \"x\"   y")"#),
            ("RUN [\"a\", \"b c\"]", r#"(run "a" "b c")"#),
            (
                "RUN --mount=type=cache,target=/x --network=none y",
                r#"(run ["--mount=type=cache,target=/x" "--network=none"] "y")"#,
            ),
            (
                "COPY --chown=\"1:2\" a b c/",
                r#"(copy ["--chown=1:2"] "a" "b" "c/")"#,
            ),
            ("COPY <<EOF /x\nhi\nEOF", r#"(copy "<<EOF" "/x")"#),
            (
                "ENV a=1 b=\"x y\"",
                r#"(env "a" "1" "=" "b" "\"x y\"" "=")"#,
            ),
            ("ENV a  b c", r#"(env "a" "b c" "")"#),
            ("ARG a b=c", r#"(arg "a" "b=c")"#),
            ("HEALTHCHECK", "(healthcheck)"),
            (
                "HEALTHCHECK CONNECT TCP 7000",
                r#"(healthcheck "CONNECT" "TCP 7000")"#,
            ),
            (
                "HEALTHCHECK --interval=5s CMD [\"a\"]",
                r#"(healthcheck ["--interval=5s"] "CMD" "a")"#,
            ),
            ("ONBUILD ADD . /app", r#"(onbuild (add "." "/app"))"#),
            ("ONBUILD", "(onbuild)"),
            ("NOSUCH --flag x", r#"(nosuch ["--flag"] "")"#),
            ("CMD", "(cmd)"),
            ("CMD []", "(cmd)"),
            ("EXPOSE 80  81", r#"(expose "80" "81")"#),
            ("VOLUME [\"/a\", \"/b\"]", r#"(volume "/a" "/b")"#),
            ("MAINTAINER A <b>", r#"(maintainer "A <b>")"#),
        ];
        for (source, want) in table {
            let nodes = parse_tree(source).unwrap();
            let text: Vec<_> = nodes.iter().map(Node::to_string).collect();
            assert_eq!(text, [want], "{source:?}");
        }
        for source in ["", "# x", "ENV a", "CMD [1]", "RUN <<EOF\nx"] {
            assert!(parse_tree(source).is_err(), "{source:?}");
        }
        assert!(parse_tree(&"ONBUILD ".repeat(5000)).is_err());
    }
}
