//! Instructions that change the configuration and make no layer.

use std::time::Duration;

use crate::dockerfile::Word;
use crate::dockerfile::ast::{
    Cmd, Command, Entrypoint, Env, Expose, Healthcheck, Instruction, KeyValue, Label, Shell, User,
    Volume,
};
use crate::dockerfile::quote::quote_list;
use crate::image::config::{self, Empty};

use super::format::{bracketed, healthcheck};
use super::{Applied, Error, StageConfig, Step, ports};

/// Takes one instruction of this kind.
pub(super) fn apply(stage: &mut StageConfig, instruction: &Instruction) -> Result<Applied, Error> {
    match instruction {
        Instruction::Env(env) => set_env(stage, env),
        Instruction::Label(label) => set_labels(stage, label),
        Instruction::Expose(expose) => expose_ports(stage, expose),
        Instruction::Volume(volume) => add_volumes(stage, volume),
        Instruction::User(user) => set_user(stage, user),
        Instruction::Cmd(cmd) => Ok(set_cmd(stage, cmd)),
        Instruction::Entrypoint(entrypoint) => Ok(set_entrypoint(stage, entrypoint)),
        Instruction::Shell(shell) => Ok(set_shell(stage, shell)),
        Instruction::Healthcheck(check) => Ok(set_healthcheck(stage, check)),
        Instruction::Stopsignal(signal) => set_stop_signal(stage, &signal.signal),
        Instruction::Maintainer(maintainer) => {
            stage.image.author = Some(maintainer.name.text.clone());
            Ok(Applied::config(format!(
                "MAINTAINER {}",
                maintainer.name.text
            )))
        }
        Instruction::Onbuild(onbuild) => {
            stage
                .image
                .config
                .on_build
                .push(onbuild.trigger.text.clone());
            Ok(Applied {
                step: Step::Config,
                history: None,
            })
        }
        Instruction::Run(_)
        | Instruction::Copy(_)
        | Instruction::Add(_)
        | Instruction::Workdir(_)
        | Instruction::Arg(_) => Err(Error::Invalid(format!(
            "{} is no instruction for the configuration",
            instruction.keyword()
        ))),
    }
}

/// No pair sees another: all are expanded before any is set.
fn expand_pairs(stage: &StageConfig, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, Error> {
    pairs
        .iter()
        .map(|pair| {
            let key = stage.scope.expand(&pair.key.text)?;
            Ok((key, stage.scope.expand(&pair.value.text)?))
        })
        .collect()
}

fn pairs_text(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("{keyword} {}", pairs.join(" "))
}

fn set_env(stage: &mut StageConfig, env: &Env) -> Result<Applied, Error> {
    let pairs = expand_pairs(stage, &env.pairs)?;
    for (name, value) in &pairs {
        if name.is_empty() {
            return Err(Error::Invalid("ENV names cannot be blank".to_owned()));
        }
        stage.scope.set(name, value);
        stage.image.config.set_env(name, value);
    }
    Ok(Applied::config(pairs_text("ENV", &pairs)))
}

fn set_labels(stage: &mut StageConfig, label: &Label) -> Result<Applied, Error> {
    let pairs = expand_pairs(stage, &label.pairs)?;
    let labels = pairs.iter().cloned();
    stage.image.config.labels.extend(labels);
    Ok(Applied::config(pairs_text("LABEL", &pairs)))
}

fn expose_ports(stage: &mut StageConfig, expose: &Expose) -> Result<Applied, Error> {
    let mut texts = Vec::new();
    for word in expose.sorted_ports() {
        texts.extend(stage.scope.expand_words(&word.text)?);
    }
    let mut all = Vec::new();
    for text in &texts {
        all.extend(ports::parse(text)?);
    }
    let exposed = all.iter().map(|port| (port.clone(), Empty {}));
    stage.image.config.exposed_ports.extend(exposed);
    Ok(Applied::config(format!("EXPOSE {}", bracketed(&all))))
}

fn add_volumes(stage: &mut StageConfig, volume: &Volume) -> Result<Applied, Error> {
    let expand = |path: &Word| stage.scope.expand(&path.text);
    let paths: Vec<String> = volume.paths.iter().map(expand).collect::<Result<_, _>>()?;
    if paths.iter().any(String::is_empty) {
        return Err(Error::Invalid(
            "VOLUME cannot be an empty string".to_owned(),
        ));
    }
    let volumes = paths.iter().map(|path| (path.clone(), Empty {}));
    stage.image.config.volumes.extend(volumes);
    Ok(Applied::config(format!("VOLUME {}", bracketed(&paths))))
}

fn set_user(stage: &mut StageConfig, user: &User) -> Result<Applied, Error> {
    let user = stage.scope.expand(&user.user.text)?;
    let text = format!("USER {user}");
    stage.image.config.user = user;
    Ok(Applied::config(text))
}

/// Gives what the configuration stores; an empty list is stored as none.
fn stored(words: Vec<String>) -> Option<Vec<String>> {
    (!words.is_empty()).then_some(words)
}

fn set_cmd(stage: &mut StageConfig, cmd: &Cmd) -> Applied {
    let words = stage.words_of(&cmd.command);
    let text = format!("CMD {}", quote_list(&words));
    stage.image.config.cmd = stored(words);
    stage.image.config.args_escaped = true;
    stage.has_cmd = true;
    Applied::config(text)
}

fn set_entrypoint(stage: &mut StageConfig, entrypoint: &Entrypoint) -> Applied {
    let words = stage.words_of(&entrypoint.command);
    let text = format!("ENTRYPOINT {}", quote_list(&words));
    stage.image.config.entrypoint = stored(words);
    if !stage.has_cmd {
        stage.image.config.cmd = None;
    }
    Applied::config(text)
}

fn set_shell(stage: &mut StageConfig, shell: &Shell) -> Applied {
    let words: Vec<String> = shell.command.iter().map(|word| word.text.clone()).collect();
    let text = format!("SHELL {}", bracketed(&words));
    stage.image.config.shell = Some(words);
    Applied::config(text)
}

/// A shell form is always for `/bin/sh`, whatever SHELL says.
fn set_healthcheck(stage: &mut StageConfig, check: &Healthcheck) -> Applied {
    let nanos = |time: Option<Duration>| {
        let nanos = time.unwrap_or_default().as_nanos();
        i64::try_from(nanos).unwrap_or(i64::MAX)
    };
    let stored = match &check.check {
        None => config::Healthcheck {
            test: vec!["NONE".to_owned()],
            ..config::Healthcheck::default()
        },
        Some(check) => config::Healthcheck {
            test: match &check.command {
                Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.text.clone()],
                Command::Exec(words) => std::iter::once("CMD".to_owned())
                    .chain(words.iter().map(|word| word.text.clone()))
                    .collect(),
            },
            interval: nanos(check.interval),
            timeout: nanos(check.timeout),
            start_period: nanos(check.start_period),
            start_interval: nanos(check.start_interval),
            retries: i64::from(check.retries.unwrap_or(0)),
        },
    };
    let text = format!("HEALTHCHECK {}", healthcheck(&stored));
    stage.image.config.healthcheck = Some(stored);
    Applied::config(text)
}

fn set_stop_signal(stage: &mut StageConfig, signal: &Word) -> Result<Applied, Error> {
    let signal = stage.scope.expand(&signal.text)?;
    if !is_signal(&signal) {
        return Err(Error::Invalid(format!("invalid signal {signal:?}")));
    }
    let text = format!("STOPSIGNAL {signal}");
    stage.image.config.stop_signal = Some(signal);
    Ok(Applied::config(text))
}

/// Linux's signals by name with or without `SIG` (signal(7)); any number but 0 is taken,
/// because the machine that will run the image may know it.
fn is_signal(text: &str) -> bool {
    const NAMES: &[&str] = &[
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
        "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
        "RTMIN", "RTMAX",
    ];
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = [("RTMIN+", 15), ("RTMAX-", 14)];
    let is_real_time = real_time.iter().any(|(prefix, last)| {
        let offset = name.strip_prefix(prefix);
        offset.is_some_and(|offset| (1..=*last).any(|number| offset == number.to_string()))
    });
    NAMES.contains(&name) || is_real_time
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn signals() {
        for good in [
            "9",
            "65",
            "SIGTERM",
            "term",
            "SIGRTMIN+3",
            "RTMIN+15",
            "RTMAX-1",
            "RTMAX-14",
        ] {
            assert!(is_signal(good), "{good}");
        }
        for bad in [
            "",
            "0",
            "SIGFOO",
            "RTMIN+16",
            "RTMIN+01",
            "RTMAX-15",
            "SIGSIGTERM",
        ] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
