//! The language's own cases that run commands (`testdata/conformance`), in the environments in
//! which each kind of engine works: they become what they become as root.
//!
//! One process of an environment builds them one after the other, since they are many and
//! small; the environments do so side by side. In `testdata/sandbox/pending` their names begin with `language/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::case::{EPOCH, bases, copy_parts, read_options, why};
use crate::conformity::Pending;
use crate::environment::{Environment, Run};
use crate::picture::Picture;
use crate::place::{Place, WANTED};

/// After so many seconds a build hangs.
const LONGEST: u32 = 120;

/// The image of each case, or why there is none.
type Images = BTreeMap<String, Result<Picture, String>>;

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_the_language_is_the_same() {
    let Some(place) = Place::get() else { return };
    let contexts = place.data().join("language");
    let cases = lay_out(&contexts);
    let others = [Environment::E3, Environment::E4, Environment::E6];
    let others: Vec<_> = others.into_iter().filter(|one| place.has(*one)).collect();
    let build_in = |environment| build(&place, environment, &contexts, &cases);
    let (reference, images) = thread::scope(|scope| {
        let builds = others.iter().map(|one| scope.spawn(|| build_in(*one)));
        let builds: Vec<_> = builds.collect();
        let reference = build_in(Environment::E1);
        let images = builds.into_iter().map(|build| build.join().unwrap());
        (reference, images.collect::<Vec<_>>())
    });
    let mut wrong = Vec::new();
    for (environment, images) in others.into_iter().zip(images) {
        let pending = Pending::read(environment);
        let verdicts = cases.keys().filter_map(|case| {
            let problems = problems(&reference[case], &images[case]);
            let verdict = pending.verdict(&format!("language/{case}"), &problems)?;
            Some(format!("{environment:?} {verdict}"))
        });
        wrong.extend(verdicts);
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

/// Makes the contexts of all cases that run a command; gives the flags of each.
fn lay_out(contexts: &Path) -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/conformance/cases");
    let cases = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let cases = cases.filter_map(|case| {
        let dockerfile = fs::read_to_string(case.path().join("Dockerfile")).unwrap();
        let name = case.file_name().into_string().unwrap();
        let wanted = runs(&dockerfile) && format!("language/{name}").starts_with(WANTED.as_str());
        wanted.then(|| (name, case.path()))
    });
    let laid_out = cases.map(|(name, case)| {
        let context = contexts.join(&name);
        copy_parts(&case, &["shared", "context"], &context);
        let ignore = case.join("dockerignore");
        if ignore.exists() {
            fs::copy(ignore, context.join(".dockerignore")).unwrap();
        }
        (name, read_options(&case).lines().flat_map(words).collect())
    });
    laid_out.collect()
}

fn words(line: &str) -> Vec<String> {
    line.splitn(2, ' ').map(str::to_owned).collect()
}

fn runs(dockerfile: &str) -> bool {
    let is_run = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_uppercase);
        let first = words.find(|word| word != "ONBUILD");
        first.as_deref() == Some("RUN")
    };
    dockerfile.lines().any(is_run)
}

/// Builds all of them in an environment.
fn build(
    place: &Place,
    environment: Environment,
    contexts: &Path,
    cases: &BTreeMap<String, Vec<String>>,
) -> Images {
    let volume = place.volume(environment);
    let ended = volume.join("language");
    fs::create_dir(&ended).unwrap();
    environment.own_volume(&ended);
    let script = ended.join("script");
    fs::write(&script, script_of(place, environment, contexts, cases)).unwrap();
    let run = Run {
        name: &format!("{environment:?}-language"),
        program: Some(&place.busybox()),
        arguments: &["sh".to_owned(), script.display().to_string()],
        volume: &volume,
        processes: None,
    };
    let mut command: Command = environment.command(place, &run);
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{environment:?}: {status}");
    let read = |name: &String| {
        let file = |kind: &str| -> PathBuf { ended.join(format!("{name}.{kind}")) };
        let text = |kind| String::from_utf8_lossy(&fs::read(file(kind)).unwrap()).into_owned();
        let image = match text("status").trim() {
            "0" => Ok(Picture::read(
                &volume.join("store"),
                text("digest").trim(),
                place.base_layers(),
            )),
            _ => Err(text("log")),
        };
        (name.clone(), image)
    };
    cases.keys().map(read).collect()
}

/// A shell script that leaves the digest, the log and the status of each build.
fn script_of(
    place: &Place,
    environment: Environment,
    contexts: &Path,
    cases: &BTreeMap<String, Vec<String>>,
) -> String {
    let store = place.volume(environment).join("store");
    let one = |(name, flags): (&String, &Vec<String>)| {
        let context = contexts.join(name);
        let arguments = [
            "build".to_owned(),
            "--progress=plain".to_owned(),
            "--no-cache".to_owned(),
            format!("--root={}", store.display()),
            EPOCH.to_owned(),
        ];
        let words = [&arguments[..], &bases(place), flags].concat();
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let ended = place.volume(environment).join("language").join(name);
        format!(
            "cd {} && {} timeout {LONGEST} {} {} . > {ended}.digest 2> {ended}.log\necho $? > {ended}.status\n",
            context.display(),
            place.busybox().display(),
            place.program().display(),
            words.join(" "),
            ended = ended.display(),
        )
    };
    cases.iter().map(one).collect()
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn problems(reference: &Result<Picture, String>, image: &Result<Picture, String>) -> Vec<String> {
    match (reference, image) {
        (Ok(reference), Ok(image)) => reference.differences(image, &[]),
        (Err(_), Err(_)) => Vec::new(),
        (Ok(_), Err(said)) => vec![format!("it fails: {}", why(said))],
        (Err(said), Ok(_)) => vec![format!("root fails: {}", why(said))],
    }
}
