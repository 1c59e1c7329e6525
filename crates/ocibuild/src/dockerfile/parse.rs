//! Text becomes stages of instructions.
//!
//! For each logical line: cut off the keyword, cut off the flags, let the keyword's
//! own parser read the arguments, and read the here-documents that they begin.

pub(super) mod arguments;
mod health;
mod instruction;

use std::ops::Range;

use super::ast::{
    Arg, BlankContinuation, Dockerfile, From, Heredoc, Instruction, Keyword, Onbuild, Origin, Stage,
};
use super::directive::{self, Directives, Escape};
use super::error::{ParseError, ParseErrorKind};
use super::flags::{self, Flags, RawFlag};
use super::heredoc::{self, Redirect};
use super::lines::{Fragment, LineReader, LogicalLine};
use super::span::{Span, Word};
use super::suggest;

type Result<T> = std::result::Result<T, ParseError>;

/// Parses the text of a Dockerfile.
///
/// ```
/// use ocibuild::dockerfile::{ast::Instruction, parse};
///
/// let file = parse("FROM alpine AS base\nRUN echo hello\n")?;
/// assert_eq!(file.stages[0].from.image.text, "alpine");
/// assert!(matches!(file.stages[0].instructions[0], Instruction::Run(_)));
///
/// let error = parse("FROM alpine\nCPY a b\n").unwrap_err();
/// assert_eq!(error.lines(), 2..=2);
/// assert_eq!(error.hint(), Some("did you mean COPY?"));
/// # Ok::<(), ocibuild::dockerfile::ParseError>(())
/// ```
pub fn parse(source: &str) -> Result<Dockerfile> {
    parse_source(source).map_err(|error| error.located(source))
}

/// Parses the bytes of a Dockerfile. Bytes that are not UTF-8 are replaced where
/// they stand in comments, and are an error in instructions.
pub fn parse_bytes(bytes: &[u8]) -> Result<Dockerfile> {
    let mut source = String::with_capacity(bytes.len());
    let mut replaced = Vec::new();
    for chunk in bytes.utf8_chunks() {
        source.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            replaced.push(source.len());
            source.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let file = parse(&source)?;
    let broken = file.origins().find_map(|origin| {
        let index = replaced.partition_point(|at| *at < origin.span.start);
        replaced.get(index).filter(|at| **at < origin.span.end)
    });
    match broken {
        None => Ok(file),
        Some(at) => {
            let span = Span::new(*at, at + char::REPLACEMENT_CHARACTER.len_utf8());
            Err(ParseError::new(ParseErrorKind::NotUtf8, span).located(&source))
        }
    }
}

impl Dockerfile {
    /// Gives the origins of all instructions, in order.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        let global = self.global_args.iter().map(|arg| &arg.origin);
        global.chain(self.stages.iter().flat_map(|stage| {
            let instructions = stage.instructions.iter().map(Instruction::origin);
            std::iter::once(&stage.from.origin).chain(instructions)
        }))
    }
}

/// Parses the stored text of an `ONBUILD` trigger, which is one instruction.
pub fn parse_trigger(text: &str) -> Result<Instruction> {
    parse_single(text, Escape::default()).map_err(|error| error.located(text))
}

fn parse_single(text: &str, escape: Escape) -> Result<Instruction> {
    let error = |kind| Err(ParseError::new(kind, Span::new(0, text.len())));
    let mut parser = Parser::new(text, 0, escape);
    let Some(statement) = parser.next_statement()? else {
        return error(ParseErrorKind::TriggerNotSingle);
    };
    if parser.lines.next_logical()?.is_some() {
        return error(ParseErrorKind::TriggerNotSingle);
    }
    match statement {
        Statement::From(_) => error(ParseErrorKind::TriggerNotAllowed(Keyword::From)),
        Statement::Instruction(
            forbidden @ (Instruction::Onbuild(_) | Instruction::Maintainer(_)),
        ) => error(ParseErrorKind::TriggerNotAllowed(forbidden.keyword())),
        Statement::Instruction(instruction) => Ok(instruction),
    }
}

/// Parses as far as it can: what stands before the first error, and that error. Build
/// checks say what they know about a file that cannot be built.
pub fn parse_prefix(source: &str) -> (Dockerfile, Option<ParseError>) {
    let located = |error: ParseError| Some(error.located(source));
    let empty = |directives| Dockerfile {
        source: source.to_owned(),
        directives,
        global_args: Vec::new(),
        stages: Vec::new(),
        blank_continuations: Vec::new(),
    };
    let head = match directive::parse_head(source) {
        Ok(head) => head,
        Err(error) => return (empty(Directives::default()), located(error)),
    };
    let mut parser = Parser::new(source, head.end, head.directives.escape());
    let mut stages = Stages::default();
    let error = stages.add_all(&mut parser).err();
    let prefix = Dockerfile {
        global_args: stages.global_args,
        stages: stages.stages,
        blank_continuations: parser.blanks,
        ..empty(head.directives)
    };
    (prefix, error.and_then(located))
}

fn parse_source(source: &str) -> Result<Dockerfile> {
    let head = directive::parse_head(source)?;
    let mut parser = Parser::new(source, head.end, head.directives.escape());
    let mut stages = Stages::default();
    stages.add_all(&mut parser)?;
    let whole = Span::new(head.end, source.len());
    if stages.stages.is_empty() {
        let kind = match stages.global_args.is_empty() {
            true => ParseErrorKind::Empty,
            false => ParseErrorKind::NoStage,
        };
        return Err(ParseError::new(kind, whole));
    }
    Ok(Dockerfile {
        source: source.to_owned(),
        directives: head.directives,
        global_args: stages.global_args,
        stages: stages.stages,
        blank_continuations: parser.blanks,
    })
}

/// An instruction before it is known which one: its keyword, flags and arguments.
pub(super) struct Raw<'l> {
    pub(super) keyword: Fragment<'l>,
    /// As they are written, without quotes and escapes.
    pub(super) flags: Vec<String>,
    pub(super) arguments: Fragment<'l>,
    pub(super) escape: Escape,
}

impl<'l> Raw<'l> {
    fn of(whole: Fragment<'l>, escape: Escape) -> Self {
        let (keyword, rest) = split_keyword(whole);
        let (flags, arguments) = flags::split(rest, escape);
        Self {
            keyword,
            flags: flags.iter().map(RawFlag::text).collect(),
            arguments,
            escape,
        }
    }

    /// Reads the arguments as an instruction themselves, where there are any.
    pub(super) fn inner(&self) -> Option<Self> {
        let is_empty = self.arguments.as_str().is_empty();
        (!is_empty).then(|| Self::of(self.arguments, self.escape))
    }
}

/// Reads a file line by line without looking into instructions further than their
/// here-documents demand.
pub(super) fn raw_lines(source: &str, visit: &mut dyn FnMut(&Raw<'_>) -> Result<()>) -> Result<()> {
    read_raw_lines(source, visit).map_err(|error| error.located(source))
}

fn read_raw_lines(source: &str, visit: &mut dyn FnMut(&Raw<'_>) -> Result<()>) -> Result<()> {
    let head = directive::parse_head(source)?;
    let escape = head.directives.escape();
    let mut parser = Parser::new(source, head.end, escape);
    let mut is_empty = true;
    while let Some(line) = parser.lines.next_logical()? {
        is_empty = false;
        let raw = Raw::of(line.fragment().trim(), escape);
        visit(&raw)?;
        let inner = match Keyword::parse(raw.keyword.as_str()) {
            Some(Keyword::Onbuild) => raw.inner(),
            _ => Some(raw),
        };
        let Some(inner) = inner else { continue };
        if let Some(keyword) = Keyword::parse(inner.keyword.as_str()) {
            let mut span = Span::default();
            parser.read_heredocs(keyword, &line, inner.arguments, &mut span)?;
        }
    }
    match is_empty {
        true => Err(ParseError::new(
            ParseErrorKind::Empty,
            Span::new(head.end, source.len()),
        )),
        false => Ok(()),
    }
}

/// An instruction, or the begin of a stage.
enum Statement {
    From(From),
    Instruction(Instruction),
}

/// Groups statements into stages.
#[derive(Default)]
struct Stages {
    global_args: Vec<Arg>,
    stages: Vec<Stage>,
}

impl Stages {
    fn add_all(&mut self, parser: &mut Parser<'_>) -> Result<()> {
        while let Some(statement) = parser.next_statement()? {
            self.add(statement)?;
        }
        Ok(())
    }

    fn add(&mut self, statement: Statement) -> Result<()> {
        match (statement, self.stages.last_mut()) {
            (Statement::From(from), _) => self.stages.push(begin_stage(from)?),
            (Statement::Instruction(instruction), Some(stage)) => {
                stage.instructions.push(instruction);
            }
            (Statement::Instruction(Instruction::Arg(arg)), None) => self.global_args.push(arg),
            (Statement::Instruction(other), None) => {
                let kind = ParseErrorKind::OutsideStage(other.keyword());
                return Err(ParseError::new(kind, other.origin().keyword.span));
            }
        }
        Ok(())
    }
}

fn begin_stage(from: From) -> Result<Stage> {
    let name = from
        .name
        .as_ref()
        .map(instruction::stage_name)
        .transpose()?;
    let description = name
        .as_ref()
        .and_then(|name| instruction::description(&from.origin.comments, &name.text));
    Ok(Stage {
        from,
        name,
        description,
        instructions: Vec::new(),
    })
}

/// What the parser of one instruction gets to see.
struct Line<'l> {
    keyword: Keyword,
    origin: Origin,
    flags: Vec<RawFlag>,
    arguments: Fragment<'l>,
    heredocs: Vec<PlacedHeredoc>,
    escape: Escape,
}

/// A here-document and where its `<<NAME` stands in the logical line.
struct PlacedHeredoc {
    range: Range<usize>,
    heredoc: Heredoc,
}

struct Parser<'a> {
    lines: LineReader<'a>,
    escape: Escape,
    /// Blank lines inside continued instructions.
    blanks: Vec<BlankContinuation>,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str, position: usize, escape: Escape) -> Self {
        Self {
            lines: LineReader::new(source, position, escape),
            escape,
            blanks: Vec::new(),
        }
    }

    fn next_statement(&mut self) -> Result<Option<Statement>> {
        let Some(mut line) = self.lines.next_logical()? else {
            return Ok(None);
        };
        let last = self.lines.position().saturating_sub(1);
        let blank = line.blank_inside.take();
        self.blanks
            .extend(blank.map(|blank| BlankContinuation { blank, last }));
        let comments = std::mem::take(&mut line.comments);
        let whole = line.fragment().trim();
        let (name, arguments) = split_keyword(whole);
        let origin = Origin {
            span: whole.span(),
            keyword: name.word(),
            line: whole.as_str().to_owned(),
            comments,
        };
        let place = origin.span;
        let statement = match find_keyword(name)? {
            Keyword::Onbuild => self.parse_onbuild(&line, arguments, origin),
            keyword => self.parse_line(keyword, &line, arguments, origin),
        };
        statement.map(Some).map_err(|error| error.or_at(place))
    }

    fn parse_line(
        &mut self,
        keyword: Keyword,
        line: &LogicalLine,
        arguments: Fragment<'_>,
        mut origin: Origin,
    ) -> Result<Statement> {
        let (flags, arguments) = flags::split(arguments, self.escape);
        let heredocs = self.read_heredocs(keyword, line, arguments, &mut origin.span)?;
        let escape = self.escape;
        instruction::parse(Line {
            keyword,
            origin,
            flags,
            arguments,
            heredocs,
            escape,
        })
    }

    /// Reads the bodies of the here-documents of an instruction, and lets `span` grow
    /// over them.
    fn read_heredocs(
        &mut self,
        keyword: Keyword,
        line: &LogicalLine,
        arguments: Fragment<'_>,
        span: &mut Span,
    ) -> Result<Vec<PlacedHeredoc>> {
        let takes_heredocs = matches!(keyword, Keyword::Run | Keyword::Copy | Keyword::Add);
        if !takes_heredocs || arguments::is_json(arguments) {
            return Ok(Vec::new());
        }
        let whole = line.fragment();
        let redirects = heredoc::find(whole.as_str()).into_iter();
        redirects
            .map(|redirect| self.read_heredoc(redirect, whole, span))
            .collect()
    }

    fn read_heredoc(
        &mut self,
        redirect: Redirect,
        whole: Fragment<'_>,
        span: &mut Span,
    ) -> Result<PlacedHeredoc> {
        let written = whole.slice(redirect.range.clone()).word();
        let Some(found) = self
            .lines
            .heredoc_body(&redirect.name, redirect.strips_tabs)?
        else {
            let kind = ParseErrorKind::UnterminatedHeredoc(redirect.name);
            return Err(ParseError::new(kind, written.span));
        };
        span.end = found.end;
        let heredoc = Heredoc {
            name: redirect.name,
            redirect: written,
            file_descriptor: redirect.file_descriptor,
            expands: redirect.expands,
            strips_tabs: redirect.strips_tabs,
            body: found.body,
        };
        Ok(PlacedHeredoc {
            range: redirect.range,
            heredoc,
        })
    }

    /// The instruction behind `ONBUILD` is kept as text. It is looked into only as far
    /// as its here-documents and the form of its arguments demand.
    fn parse_onbuild(
        &mut self,
        line: &LogicalLine,
        arguments: Fragment<'_>,
        mut origin: Origin,
    ) -> Result<Statement> {
        let (flags, inner) = flags::split(arguments, self.escape);
        Flags::check(Keyword::Onbuild, flags, &[])?;
        let (name, arguments) = split_keyword(inner);
        if name.as_str().is_empty() {
            let kind = ParseErrorKind::NoArgument(Keyword::Onbuild);
            return Err(ParseError::new(kind, origin.span));
        }
        let mut trigger = inner.word();
        match Keyword::parse(name.as_str()) {
            Some(keyword @ (Keyword::Onbuild | Keyword::From | Keyword::Maintainer)) => {
                let kind = ParseErrorKind::TriggerNotAllowed(keyword);
                return Err(ParseError::new(kind, name.span()));
            }
            Some(keyword) => {
                let (_, arguments) = flags::split(arguments, self.escape);
                let placed = self.read_heredocs(keyword, line, arguments, &mut origin.span)?;
                append_heredocs(&mut trigger.text, &placed);
                check_trigger(&trigger, self.escape)?;
            }
            // Nobody knows what the builder of a child image will understand.
            None => {}
        }
        Ok(Statement::Instruction(Instruction::Onbuild(Onbuild {
            origin,
            trigger,
        })))
    }
}

fn append_heredocs(trigger: &mut String, heredocs: &[PlacedHeredoc]) {
    for PlacedHeredoc { heredoc, .. } in heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.body.text);
        trigger.push_str(&heredoc.name);
    }
}

/// Finds the few errors of a trigger that are reported before it fires.
fn check_trigger(trigger: &Word, escape: Escape) -> Result<()> {
    use ParseErrorKind::{JsonNotStrings, NoEquals, NoValue};
    match parse_single(&trigger.text, escape) {
        Err(error)
            if matches!(
                error.kind(),
                JsonNotStrings(_) | NoEquals { .. } | NoValue(_)
            ) =>
        {
            Err(ParseError::new(error.kind().clone(), trigger.span))
        }
        _ => Ok(()),
    }
}

fn split_keyword(line: Fragment<'_>) -> (Fragment<'_>, Fragment<'_>) {
    let (keyword, rest) = line.split_first();
    (
        keyword,
        rest.unwrap_or_else(|| line.from(line.as_str().len())),
    )
}

fn find_keyword(name: Fragment<'_>) -> Result<Keyword> {
    Keyword::parse(name.as_str()).ok_or_else(|| {
        let names = Keyword::ALL.map(|(_, name)| name);
        let kind = ParseErrorKind::UnknownInstruction(name.as_str().to_owned());
        let error = ParseError::new(kind, name.span());
        error.with_suggestion(suggest::nearest(name.as_str(), &names))
    })
}
