//! What a case expects, a line each; `#` begins a comment:
//!
//! ```text
//! at PATH 0755 0:0 dir          what is at a path of the image, or `-` for nothing
//! text PATH one\ntwo            the whole content of a file, without the newline at its end
//! has PATH text                 a part of it
//! untouched PATH                no layer says anything of it
//! layer 0 a b !c                all that a layer has; the first that is no base's is 0
//! varies PATH                   its content may differ between two builds; `*` at the end
//! says text                     a part of the log
//! fails text                    the build fails, and says this
//! long REASON                   it takes so long that it is built as root and in a restricted
//!                               pod only, unless OCIBUILD_TEST_LONG is set
//! ```

use crate::case::{Outcome, why};
use crate::picture::Picture;

/// All lines of one case.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    lines: Vec<Line>,
    /// Files whose content may differ.
    pub(crate) varying: Vec<String>,
    fails: Vec<String>,
    /// Whether it takes long.
    pub(crate) is_long: bool,
}

#[derive(Debug)]
enum Line {
    At(String, String),
    Text(String, String),
    Has(String, String),
    Untouched(String),
    Layer(usize, Vec<String>),
    Says(String),
}

impl Expectation {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (word, rest) = line
                .split_once(' ')
                .ok_or_else(|| format!("not understood: {line}"))?;
            let pair = || {
                let (path, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (path.to_owned(), rest.replace("\\n", "\n"))
            };
            match word {
                "varies" => all.varying.push(rest.to_owned()),
                "fails" => all.fails.push(rest.to_owned()),
                "long" => all.is_long = true,
                _ => all.lines.push(match word {
                    "at" => Line::At(pair().0, pair().1),
                    "text" => Line::Text(pair().0, pair().1),
                    "has" => Line::Has(pair().0, pair().1),
                    "untouched" => Line::Untouched(rest.to_owned()),
                    "layer" => {
                        let number = pair().0.parse().map_err(|_| format!("no number: {line}"))?;
                        Line::Layer(
                            number,
                            pair().1.split_whitespace().map(str::to_owned).collect(),
                        )
                    }
                    "says" => Line::Says(rest.to_owned()),
                    _ => return Err(format!("not understood: {line}")),
                }),
            }
        }
        Ok(all)
    }

    /// What is not as it should be.
    pub(crate) fn problems(&self, outcome: &Outcome) -> Vec<String> {
        match (&outcome.image, self.fails.is_empty()) {
            (Err(said), true) => vec![format!("it failed: {}", why(said))],
            (Err(said), false) => missing(&self.fails, said),
            (Ok(_), false) => vec!["it was to fail".to_owned()],
            (Ok(image), true) => {
                let problems = self
                    .lines
                    .iter()
                    .filter_map(|line| line.problem(image, &outcome.said));
                problems.collect()
            }
        }
    }

    /// Whether the build is to fail.
    pub(crate) fn is_failure(&self) -> bool {
        !self.fails.is_empty()
    }
}

impl Line {
    fn problem(&self, image: &Picture, said: &str) -> Option<String> {
        let differs = |what: &str, want: &str, found: String| {
            (found != want).then(|| format!("{what}: {found:?} in place of {want:?}"))
        };
        match self {
            Self::At(path, want) => {
                differs(path, want, image.at(path).unwrap_or_else(|| "-".to_owned()))
            }
            Self::Text(path, want) => {
                let text = image.text(path).unwrap_or_else(|| "-".to_owned());
                differs(
                    path,
                    want,
                    text.strip_suffix('\n').unwrap_or(&text).to_owned(),
                )
            }
            Self::Has(path, want) => {
                let text = image.text(path).unwrap_or_default();
                (!text.contains(want)).then(|| format!("{path} has no {want:?}: {text}"))
            }
            Self::Untouched(path) => {
                let found = image.mentions(path);
                found.then(|| format!("a layer has {path}"))
            }
            Self::Layer(number, want) => {
                let strip = |path: String| path.replacen('/', "", 1);
                let found: Vec<String> = image
                    .layer(*number)
                    .unwrap_or_default()
                    .into_iter()
                    .map(strip)
                    .collect();
                (found != *want).then(|| format!("layer {number}: {found:?} in place of {want:?}"))
            }
            Self::Says(text) => missing(std::slice::from_ref(text), said).pop(),
        }
    }
}

fn missing(texts: &[String], said: &str) -> Vec<String> {
    let missing = texts.iter().filter(|text| !said.contains(text.as_str()));
    missing
        .map(|text| format!("nothing says {text:?}: {}", why(said)))
        .collect()
}
