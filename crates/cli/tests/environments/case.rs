//! A case: a folder of `testdata/sandbox` with a `Dockerfile`, what is expected of it
//! (`expect`, see `expectation`), and as it needs them the files of `context`, the shell script
//! `prepare.sh` for what Git cannot hold, and `options` with a flag and its value a line.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::environment::{Environment, Run};
use crate::expectation::Expectation;
use crate::picture::Picture;
use crate::place::{BASES, Place, WANTED};

/// No file of an image is newer, whenever it was built.
pub(crate) const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

/// After this a build hangs.
const LONGEST: Duration = Duration::from_secs(240);

/// One case.
pub(crate) struct Case {
    pub(crate) name: String,
    folder: PathBuf,
}

/// How a build ended.
pub(crate) struct Ended {
    pub(crate) succeeded: bool,
    /// The digest of the image.
    pub(crate) out: String,
    /// Everything else.
    pub(crate) said: String,
}

/// What came of a case in one environment.
pub(crate) struct Outcome {
    /// The image, or why there is none.
    pub(crate) image: Result<Picture, String>,
    pub(crate) said: String,
}

impl Case {
    /// Those that are wanted, by name.
    pub(crate) fn all() -> Vec<Self> {
        let folder = testdata();
        let mut cases: Vec<Self> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .map(|folder| Self {
                name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
                folder,
            })
            .filter(|case| case.name.starts_with(WANTED.as_str()))
            .collect();
        cases.sort_by(|one, other| one.name.cmp(&other.name));
        let others = WANTED.starts_with("language/");
        assert!(
            others || !cases.is_empty(),
            "no case begins with {:?}",
            *WANTED
        );
        cases
    }

    /// What is expected of it.
    pub(crate) fn expectation(&self) -> Expectation {
        let file = self.folder.join("expect");
        let text =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Expectation::parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", file.display()))
    }

    /// Builds it in an environment.
    pub(crate) fn outcome(&self, place: &Place, environment: Environment) -> Outcome {
        let context = place.data().join("cases").join(&self.name);
        let job = Job {
            flags: self.options(&context),
            ..Job::new(environment, &self.name, &context)
        };
        let ended = job.ended(place);
        let image = match ended.succeeded {
            true => Ok(Picture::read(
                &place.volume(environment).join("store"),
                ended.out.trim(),
                place.base_layers(),
            )),
            false => Err(ended.said.clone()),
        };
        Outcome {
            image,
            said: ended.said,
        }
    }

    /// Lines of a flag and its value, in which `$CONTEXT` is where the context lies and `$CASES`
    /// where all of them do.
    fn options(&self, context: &Path) -> Vec<String> {
        let text = read_options(&self.folder);
        let text = text.replace("$CONTEXT", context.to_str().unwrap());
        let text = text.replace("$CASES", context.parent().unwrap().to_str().unwrap());
        let parts = text.lines().flat_map(|line| line.splitn(2, ' '));
        parts.chain([EPOCH]).map(str::to_owned).collect()
    }
}

/// Lines of a flag and its value.
pub(crate) fn read_options(folder: &Path) -> String {
    fs::read_to_string(folder.join("options")).unwrap_or_default()
}

/// Makes a context of the Dockerfile and these folders of a case, and lets its script do the
/// rest.
pub(crate) fn copy_parts(folder: &Path, parts: &[&str], context: &Path) {
    fs::create_dir_all(context).unwrap();
    let shell = |script: &str, arguments: &[&Path]| {
        let mut command = Command::new("sh");
        command
            .args(["-ec", script, "sh"])
            .args(arguments)
            .current_dir(context);
        assert!(command.status().unwrap().success(), "{}", folder.display());
    };
    for part in parts.iter().map(|part| folder.join(part)) {
        if part.exists() {
            shell("cp -a \"$1\" .", &[&part.join(".")]);
        }
    }
    fs::copy(folder.join("Dockerfile"), context.join("Dockerfile")).unwrap();
    if folder.join("prepare.sh").exists() {
        shell(". \"$1\"", &[&folder.join("prepare.sh")]);
    }
    // Every environment reads it.
    shell("chmod -R a+rX .", &[]);
}

/// Makes the contexts of all cases.
pub(crate) fn lay_out_all(folder: &Path) {
    for case in Case::all() {
        copy_parts(&case.folder, &["context"], &folder.join(&case.name));
    }
}

/// One build in one environment.
pub(crate) struct Job<'a> {
    pub(crate) environment: Environment,
    pub(crate) name: &'a str,
    pub(crate) context: &'a Path,
    /// Further flags.
    pub(crate) flags: Vec<String>,
    /// Another folder to write to than that of the environment.
    pub(crate) volume: Option<PathBuf>,
    /// How many processes there may be.
    pub(crate) processes: Option<u32>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(environment: Environment, name: &'a str, context: &'a Path) -> Self {
        Self {
            environment,
            name,
            context,
            flags: Vec::new(),
            volume: None,
            processes: None,
        }
    }

    /// Builds, and waits for the end, but not for ever.
    pub(crate) fn ended(&self, place: &Place) -> Ended {
        let (mut out, mut said) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = self.command(place);
        command
            .stdout(out.try_clone().unwrap())
            .stderr(said.try_clone().unwrap());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > LONGEST {
                let _ = place.docker().arg("kill").arg(self.container()).output();
                child.kill().unwrap();
                let taken = format!("error: it takes longer than {LONGEST:?}\n");
                said.write_all(taken.as_bytes()).unwrap();
                break child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ended {
            succeeded: status.success(),
            out: text(&mut out),
            said: text(&mut said),
        }
    }

    /// The command that builds with the base images of the place.
    pub(crate) fn command(&self, place: &Place) -> Command {
        let volume = self
            .volume
            .clone()
            .unwrap_or_else(|| place.volume(self.environment));
        let data = place.data();
        let mut arguments = vec!["build".to_owned(), "--progress=plain".to_owned()];
        arguments.push(format!("--root={}", volume.join("store").display()));
        arguments.extend(bases(place));
        arguments.push(format!(
            "--build-context=wheels={}",
            data.join("wheels").display()
        ));
        arguments.push(format!("--build-arg=MIRROR={}", place.mirror()));
        arguments.push(format!(
            "--build-arg=SECRET_PATH={}",
            place.secret().display()
        ));
        arguments.extend(self.flags.iter().cloned());
        arguments.push(self.context.display().to_string());
        let run = Run {
            name: &self.container(),
            program: None,
            arguments: &arguments,
            volume: &volume,
            processes: self.processes,
        };
        self.environment.command(place, &run)
    }

    /// The name of its container.
    pub(crate) fn container(&self) -> String {
        format!("{:?}-{}", self.environment, self.name)
    }
}

/// Flags that name the base images.
pub(crate) fn bases(place: &Place) -> Vec<String> {
    let layouts = BASES.map(|base| (base, place.data().join("bases").join(base)));
    let there = layouts.iter().filter(|(_, layout)| layout.exists());
    there
        .map(|(base, layout)| format!("--build-context={base}=oci-layout://{}", layout.display()))
        .collect()
}

/// The folder of the cases.
pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/sandbox")
}

/// All that a file has.
fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Of a log what tells why a build failed.
pub(crate) fn why(said: &str) -> String {
    let tells = |line: &&str| line.starts_with("error: ") || line.starts_with(" > ");
    let lines: Vec<&str> = said.lines().filter(tells).collect();
    match lines.is_empty() {
        true => said.to_owned(),
        false => lines.join("\n    "),
    }
}
