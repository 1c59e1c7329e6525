//! Build checks before and during a build, and in place of one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use tokio_util::task::TaskTracker;

use super::base::{self, Begun};
use super::{Shared, open};
use crate::build::Build;
use crate::check::{Checked, Found};
use crate::dockerfile::lint::{self, Linter, Settings, Warning};
use crate::dockerfile::{LineStarts, parse_prefix};
use crate::error::{Error, Location};
use crate::event::{CheckWarning, Event};
use crate::graph::check::{StageRules, check_base_platform, check_bases};
use crate::graph::{Base, Plan, PlannedStage, walk};
use crate::image::ImageConfig;

/// Overrides `# check=` of the file.
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Gives the settings in force: those of the build argument, else those of the file.
pub(super) fn settings(plan: &Plan) -> Result<Settings, Error> {
    if let Some(given) = plan.request.args.get(CHECK_ARG) {
        return Settings::parse(given)
            .map_err(|error| Error::invalid(format!("--build-arg {CHECK_ARG}: {error}")));
    }
    lint::settings_of(&plan.dockerfile).map_err(|error| {
        let check = plan.dockerfile.directives.check.as_ref();
        let line = plan.lines.line(check.map_or(0, |check| check.span.start));
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        Error::Parse {
            location: Location {
                file: plan.request.file.clone(),
                lines: line..=line,
                text: plan.text.clone(),
            },
            message: error.to_string(),
            hint: None,
        }
    })
}

/// Checks what is decided before any base is loaded, and tells it.
pub(crate) fn file(session: &Shared) -> Result<(), Error> {
    tell_of_frontend(session);
    let mut linter = Linter::new(&session.plan.lines, session.checks.clone());
    lint::lint(&session.plan.dockerfile, &mut linter);
    check_bases(&session.plan, &mut linter);
    report(session, &linter.finish())
}

/// Another frontend than Docker's own is not run; its language may be another.
fn tell_of_frontend(session: &Shared) {
    let Some(syntax) = &session.plan.dockerfile.directives.syntax else {
        return;
    };
    let image = syntax.text.split_whitespace().next().unwrap_or_default();
    let name = image.strip_prefix("docker.io/").unwrap_or(image);
    let repository = name.split([':', '@']).next().unwrap_or_default();
    if !matches!(
        repository,
        "docker/dockerfile" | "docker/dockerfile-upstream"
    ) {
        let line = session.plan.lines.line(syntax.span.start);
        session.warn(format!(
            "{}:{line}: the frontend {image} is not run: the file is read as a Dockerfile",
            session.plan.request.file
        ));
    }
}

/// Checks a stage whose base has been loaded, before its first instruction is carried out.
pub(crate) fn stage(
    session: &Shared,
    index: usize,
    planned: &PlannedStage,
    begun: &Begun,
) -> Result<(), Error> {
    let plan = &session.plan;
    let mut linter = Linter::new(&plan.lines, session.checks.clone());
    if !matches!(planned.base, Base::Stage(_)) {
        let source = &plan.dockerfile.stages[index];
        let actual = &begun.state.config.image.platform;
        check_base_platform(
            source,
            &planned.base_name,
            &planned.platform,
            actual,
            &mut linter,
        );
    }
    let mut rules = StageRules::new(session.ignored.as_deref());
    let config = begun.state.config.clone();
    let mut visit = |visit: walk::Visit<'_>| rules.visit(plan, visit, &mut linter);
    // An instruction that cannot be taken fails when its turn comes.
    let _ = walk::take_all(plan, index, config, &begun.triggers, true, &mut visit);
    report(session, &linter.finish())
}

/// Tells warnings, and fails where the file asks for that.
fn report(session: &Shared, warnings: &[Warning]) -> Result<(), Error> {
    let plan = &session.plan;
    for warning in warnings {
        let told = describe(&plan.request.file, &plan.text, &plan.lines, warning);
        let text = format!(
            "{}:{} {} {}",
            told.at_line, told.at_column, told.rule, told.message
        );
        if session.steps.is_news(text) {
            session.steps.events.emit(Event::Check(told));
        }
    }
    match violation(plan, &session.checks, warnings) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn violation(plan: &Plan, settings: &Settings, warnings: &[Warning]) -> Option<Error> {
    let first = warnings.first().filter(|_| settings.is_error)?;
    let rules: BTreeSet<&str> = warnings.iter().map(|it| it.rule.name()).collect();
    let number = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
    Some(Error::Check {
        location: Location {
            file: plan.request.file.clone(),
            lines: number(first.lines.0)..=number(first.lines.1),
            text: plan.text.clone(),
        },
        rules: Vec::from_iter(rules).join(", "),
    })
}

fn describe(file: &str, text: &str, lines: &LineStarts, warning: &Warning) -> CheckWarning {
    let at = lines.line_col(text, warning.span.start);
    let line = lines.text(text, at.line);
    let meant = warning.span.slice(text).lines().next().unwrap_or_default();
    CheckWarning {
        rule: warning.rule.name().to_owned(),
        message: warning.message.clone(),
        url: warning.rule.url(),
        file: file.to_owned(),
        line: warning.lines.0,
        end_line: warning.lines.1,
        at_line: at.line,
        at_column: at.column,
        at_width: meant.chars().count().max(1),
        text: line.to_owned(),
    }
}

/// Checks in place of building.
pub(crate) async fn run(build: Build, offline: bool) -> Result<Checked, Error> {
    let all = build.target.is_none();
    let given = build.args.get(CHECK_ARG).cloned();
    let blocking = TaskTracker::new();
    let opened = open::session(build, blocking.clone()).await;
    blocking.close();
    let session = match opened {
        Ok(session) => session,
        Err(error) => return prefix(error, given.as_deref()),
    };
    let plan = &session.plan;
    let stages = match (all, plan.reachable()) {
        (false, Ok(needed)) => needed,
        _ => (0..plan.stages.len()).collect(),
    };
    let (bases, unknown_bases) = load_bases(&session, &stages, offline).await;
    let mut linter = Linter::new(&plan.lines, session.checks.clone());
    lint::lint(&plan.dockerfile, &mut linter);
    check_bases(plan, &mut linter);
    check_platforms(plan, &bases, &mut linter);
    let mut rules = StageRules::new(session.ignored.as_deref());
    let mut visit = |visit: walk::Visit<'_>| rules.visit(plan, visit, &mut linter);
    let walked = walk::walk(plan, stages, &bases, &mut visit);
    let warnings = linter.finish();
    let error = match walked {
        Err((location, error)) => Some(Error::from(error).at(&location)),
        Ok(_) => violation(plan, &session.checks, &warnings),
    };
    let told = warnings.iter();
    let told = told.map(|it| describe(&plan.request.file, &plan.text, &plan.lines, it));
    Ok(Checked {
        file: plan.request.file.clone(),
        text: plan.text.clone(),
        warnings: told.collect(),
        error,
        unknown_bases,
    })
}

fn check_platforms(plan: &Plan, bases: &BTreeMap<usize, ImageConfig>, linter: &mut Linter<'_>) {
    for (index, image) in bases {
        if let Some(Ok(planned)) = plan.stages.get(*index) {
            let stage = &plan.dockerfile.stages[*index];
            let (expected, actual) = (&planned.platform, &image.platform);
            check_base_platform(stage, &planned.base_name, expected, actual, linter);
        }
    }
}

/// Loads the configurations of the bases of stages; gives also what could not be had.
async fn load_bases(
    session: &Shared,
    stages: &BTreeSet<usize>,
    offline: bool,
) -> (BTreeMap<usize, ImageConfig>, Vec<String>) {
    let planned = stages
        .iter()
        .filter_map(|index| match session.plan.stages.get(*index) {
            Some(Ok(planned)) => Some((*index, planned)),
            _ => None,
        });
    let loads = planned.map(|(index, planned)| async move {
        let platform = Some(&planned.platform);
        let loaded = match &planned.base {
            Base::Scratch | Base::Stage(_) => return None,
            _ if offline => return Some(Err(planned.base_name.clone())),
            Base::Image(reference) => base::image(session, reference, platform).await,
            Base::Context(name) => base::named(session, name, platform).await,
        };
        let failed = |error| format!("{}: {}", planned.base_name, crate::causes::one_line(&error));
        Some(loaded.map(|image| (index, image.config)).map_err(failed))
    });
    let (mut bases, mut unknown) = (BTreeMap::new(), BTreeSet::new());
    for loaded in join_all(loads).await.into_iter().flatten() {
        match loaded {
            Ok((index, config)) => drop(bases.insert(index, config)),
            Err(reason) => drop(unknown.insert(reason)),
        }
    }
    (bases, Vec::from_iter(unknown))
}

/// Checks as much of a Dockerfile as can be read, where it cannot be built. An error
/// without a place in it is no answer but an error.
fn prefix(error: Error, given: Option<&str>) -> Result<Checked, Error> {
    let Some(location) = error.location().cloned() else {
        return Err(error);
    };
    let Location { file, text, .. } = location;
    let (dockerfile, _) = parse_prefix(&text);
    let settings = match given {
        Some(given) => Settings::parse(given),
        None => lint::settings_of(&dockerfile),
    };
    let lines = LineStarts::new(&text);
    let mut linter = Linter::new(&lines, settings.unwrap_or_default());
    lint::lint(&dockerfile, &mut linter);
    let warnings = linter.finish();
    let told = warnings.iter().map(|it| describe(&file, &text, &lines, it));
    Ok(Checked {
        warnings: told.collect(),
        file,
        text,
        error: Some(error),
        unknown_bases: Vec::new(),
    })
}

/// Answers a question that the plan alone decides.
pub(crate) async fn with_plan<T>(
    build: Build,
    ask: fn(&Plan) -> Result<T, (Location, crate::graph::Error)>,
) -> Result<Found<T>, Error> {
    let blocking = TaskTracker::new();
    let session = open::session(build, blocking.clone()).await?;
    blocking.close();
    let plan = &session.plan;
    let answer = ask(plan).map_err(|(location, error)| Error::from(error).at(&location))?;
    Ok(Found {
        file: plan.request.file.clone(),
        text: Arc::clone(&plan.text),
        answer,
    })
}
