//! One function for each instruction, from flags and arguments to its type.

use super::{Line, Result, Statement, arguments, health};
use crate::dockerfile::ast::{
    Add, AddFlags, Arg, ArgDeclaration, Cmd, Copy, CopyFlags, Entrypoint, Env, Expose, From,
    Heredoc, Instruction, Keyword, Label, Maintainer, Network, Run, Security, Shell, Stopsignal,
    User, Volume, Workdir,
};
use crate::dockerfile::error::{ParseError, ParseErrorKind};
use crate::dockerfile::flags::{Flags, Kind};
use crate::dockerfile::lines::Fragment;
use crate::dockerfile::mount;
use crate::dockerfile::span::Word;

const FROM_FLAGS: [(&str, Kind); 1] = [("platform", Kind::Text)];

const RUN_FLAGS: [(&str, Kind); 4] = [
    ("mount", Kind::List),
    ("network", Kind::Text),
    ("security", Kind::Text),
    ("device", Kind::List),
];

const COPY_FLAGS: [(&str, Kind); 6] = [
    ("from", Kind::Text),
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Switch),
    ("parents", Kind::Switch),
    ("exclude", Kind::List),
];

const ADD_FLAGS: [(&str, Kind); 7] = [
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Switch),
    ("keep-git-dir", Kind::Switch),
    ("checksum", Kind::Text),
    ("unpack", Kind::Switch),
    ("exclude", Kind::List),
];

pub(super) fn parse(line: Line<'_>) -> Result<Statement> {
    Ok(Statement::Instruction(match line.keyword {
        Keyword::From => return from(line).map(Statement::From),
        Keyword::Add => Instruction::Add(add(line)?),
        Keyword::Arg => Instruction::Arg(arg(line)?),
        Keyword::Copy => Instruction::Copy(copy(line)?),
        Keyword::Healthcheck => Instruction::Healthcheck(health::parse(line)?),
        Keyword::Run => Instruction::Run(run(line)?),
        _ => return without_flags(line).map(Statement::Instruction),
    }))
}

/// The instructions that have no flags at all.
fn without_flags(line: Line<'_>) -> Result<Instruction> {
    let Line {
        keyword,
        origin,
        flags,
        arguments,
        escape,
        ..
    } = line;
    Flags::check(keyword, flags, &[])?;
    let text = || required(keyword, arguments);
    Ok(match keyword {
        Keyword::Cmd => Instruction::Cmd(Cmd {
            origin,
            command: arguments::command(keyword, arguments)?,
        }),
        Keyword::Entrypoint => {
            let command = arguments::command(keyword, arguments)?;
            Instruction::Entrypoint(Entrypoint { origin, command })
        }
        Keyword::Env => {
            let pairs = arguments::key_values(keyword, arguments, escape)?;
            Instruction::Env(Env { origin, pairs })
        }
        Keyword::Label => {
            let pairs = arguments::key_values(keyword, arguments, escape)?;
            Instruction::Label(Label { origin, pairs })
        }
        Keyword::Expose => {
            let ports = required(keyword, arguments)?.split();
            let ports = ports.iter().map(Fragment::word).collect();
            Instruction::Expose(Expose { origin, ports })
        }
        Keyword::Shell => Instruction::Shell(Shell {
            origin,
            command: shell(arguments)?,
        }),
        Keyword::Volume => Instruction::Volume(Volume {
            origin,
            paths: volume(arguments)?,
        }),
        Keyword::Stopsignal => Instruction::Stopsignal(Stopsignal {
            origin,
            signal: text()?.word(),
        }),
        Keyword::User => Instruction::User(User {
            origin,
            user: text()?.word(),
        }),
        Keyword::Workdir => Instruction::Workdir(Workdir {
            origin,
            path: text()?.word(),
        }),
        // `parse` hands on nothing else: the other keywords have functions of their own.
        _ => Instruction::Maintainer(Maintainer {
            origin,
            name: text()?.word(),
        }),
    })
}

fn required(keyword: Keyword, arguments: Fragment<'_>) -> Result<Fragment<'_>> {
    match arguments.as_str().is_empty() {
        true => Err(ParseError::new(
            ParseErrorKind::NoArgument(keyword),
            arguments.span(),
        )),
        false => Ok(arguments),
    }
}

fn from(line: Line<'_>) -> Result<From> {
    let mut flags = Flags::check(Keyword::From, line.flags, &FROM_FLAGS)?;
    let words = line.arguments.split();
    let (image, as_keyword, name) = match words.as_slice() {
        [image] => (image, None, None),
        [image, middle, name] if middle.as_str().eq_ignore_ascii_case("as") => {
            (image, Some(middle.word()), Some(name.word()))
        }
        _ => {
            return Err(ParseError::new(
                ParseErrorKind::FromArguments,
                line.origin.span,
            ));
        }
    };
    let platform = flags.text("platform");
    Ok(From {
        origin: line.origin,
        platform,
        image: image.word(),
        as_keyword,
        name,
    })
}

/// Checks the name of a stage and gives it in lower case.
pub(super) fn stage_name(written: &Word) -> Result<Word> {
    let name = written.text.to_lowercase();
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    match begins_well && name.chars().all(is_allowed) {
        true => Ok(Word::new(name, written.span)),
        false => {
            let kind = ParseErrorKind::StageName(written.text.clone());
            Err(ParseError::new(kind, written.span))
        }
    }
}

/// Finds the comment that begins with a name and gives what it says.
pub(super) fn description(comments: &[Word], name: &str) -> Option<String> {
    let about = |comment: &Word| {
        Some(
            comment
                .text
                .strip_prefix(name)?
                .strip_prefix(' ')?
                .to_owned(),
        )
    };
    comments.iter().find_map(about)
}

fn arg(line: Line<'_>) -> Result<Arg> {
    Flags::check(Keyword::Arg, line.flags, &[])?;
    let words = arguments::quoted_words(required(Keyword::Arg, line.arguments)?, line.escape);
    let mut declarations = Vec::new();
    for word in words {
        let (name, default) = match word.as_str().find('=') {
            Some(at) => (word.slice(0..at).word(), Some(word.from(at + 1).word())),
            None => (word.word(), None),
        };
        if name.text.is_empty() {
            return Err(ParseError::new(
                ParseErrorKind::BlankName(Keyword::Arg),
                word.span(),
            ));
        }
        let description = description(&line.origin.comments, &name.text);
        declarations.push(ArgDeclaration {
            name,
            default,
            description,
        });
    }
    Ok(Arg {
        origin: line.origin,
        declarations,
    })
}

fn run(line: Line<'_>) -> Result<Run> {
    let mut flags = Flags::check(Keyword::Run, line.flags, &RUN_FLAGS)?;
    let mounts = flags.list("mount");
    for mount in &mounts {
        mount::check(&mount.text)
            .map_err(|reason| ParseError::new(ParseErrorKind::Mount(reason), mount.span))?;
    }
    Ok(Run {
        origin: line.origin,
        mounts,
        network: network(flags.text("network"))?,
        security: security(flags.text("security"))?,
        devices: flags.list("device"),
        command: arguments::command(Keyword::Run, line.arguments)?,
        heredocs: line
            .heredocs
            .into_iter()
            .map(|placed| placed.heredoc)
            .collect(),
    })
}

fn network(word: Option<Word>) -> Result<Network> {
    let Some(word) = word else {
        return Ok(Network::default());
    };
    match word.text.as_str() {
        "default" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => Err(ParseError::new(
            ParseErrorKind::Network(word.text),
            word.span,
        )),
    }
}

fn security(word: Option<Word>) -> Result<Security> {
    let Some(word) = word else {
        return Ok(Security::default());
    };
    match word.text.as_str() {
        "sandbox" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        _ => Err(ParseError::new(
            ParseErrorKind::Security(word.text),
            word.span,
        )),
    }
}

fn copy(mut line: Line<'_>) -> Result<Copy> {
    let mut flags = Flags::check(Keyword::Copy, std::mem::take(&mut line.flags), &COPY_FLAGS)?;
    let flags = CopyFlags {
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or_default(),
        parents: flags.switch("parents").unwrap_or_default(),
        exclude: flags.list("exclude"),
    };
    let Transfer {
        sources,
        heredocs,
        destination,
    } = transfer(&mut line)?;
    Ok(Copy {
        origin: line.origin,
        flags,
        sources,
        heredocs,
        destination,
    })
}

fn add(mut line: Line<'_>) -> Result<Add> {
    let mut flags = Flags::check(Keyword::Add, std::mem::take(&mut line.flags), &ADD_FLAGS)?;
    let flags = AddFlags {
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or_default(),
        keep_git_dir: flags.switch("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.switch("unpack"),
        exclude: flags.list("exclude"),
    };
    let Transfer {
        sources,
        heredocs,
        destination,
    } = transfer(&mut line)?;
    Ok(Add {
        origin: line.origin,
        flags,
        sources,
        heredocs,
        destination,
    })
}

/// What `COPY` and `ADD` have in common.
struct Transfer {
    sources: Vec<Word>,
    heredocs: Vec<Heredoc>,
    destination: Word,
}

fn transfer(line: &mut Line<'_>) -> Result<Transfer> {
    let error = |kind| Err(ParseError::new(kind, line.origin.span));
    let (mut sources, last_is_heredoc) = match arguments::json(line.keyword, line.arguments)? {
        Some(words) => (words, false),
        None => words_beside_heredocs(line),
    };
    if sources.len() + line.heredocs.len() < 2 {
        return error(ParseErrorKind::NoDestination(line.keyword));
    }
    if last_is_heredoc {
        return error(ParseErrorKind::HeredocDestination(line.keyword));
    }
    let Some(destination) = sources.pop() else {
        return error(ParseErrorKind::NoDestination(line.keyword));
    };
    let heredocs = line
        .heredocs
        .drain(..)
        .map(|placed| placed.heredoc)
        .collect();
    Ok(Transfer {
        sources,
        heredocs,
        destination,
    })
}

/// Gives the words that are no part of a here-document, and whether one comes last.
fn words_beside_heredocs(line: &Line<'_>) -> (Vec<Word>, bool) {
    let mut words = Vec::new();
    let mut last_is_heredoc = false;
    // Both come in the order of the line.
    let mut heredocs = line.heredocs.iter().map(|placed| &placed.range).peekable();
    for word in line.arguments.split() {
        let start = word.range().start;
        while heredocs.next_if(|range| range.end <= start).is_some() {}
        last_is_heredoc = heredocs.peek().is_some_and(|range| range.contains(&start));
        if !last_is_heredoc {
            words.push(word.word());
        }
    }
    (words, last_is_heredoc)
}

fn shell(arguments: Fragment<'_>) -> Result<Vec<Word>> {
    let arguments = required(Keyword::Shell, arguments)?;
    let error = |kind| Err(ParseError::new(kind, arguments.span()));
    match arguments::json(Keyword::Shell, arguments)? {
        None => error(ParseErrorKind::JsonRequired(Keyword::Shell)),
        Some(words) if words.is_empty() => error(ParseErrorKind::NoArgument(Keyword::Shell)),
        Some(words) => Ok(words),
    }
}

fn volume(arguments: Fragment<'_>) -> Result<Vec<Word>> {
    let mut paths = arguments::list(Keyword::Volume, arguments)?;
    for path in &mut paths {
        path.text = path.text.trim().to_owned();
        if path.text.is_empty() {
            return Err(ParseError::new(ParseErrorKind::EmptyVolume, path.span));
        }
    }
    match paths.is_empty() {
        true => Err(ParseError::new(
            ParseErrorKind::NoArgument(Keyword::Volume),
            arguments.span(),
        )),
        false => Ok(paths),
    }
}
