//! A bare repository that a test fills with the `git` program, untouched by the
//! configuration of the user or the machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A repository of a [`super::GitServer`], with a work tree to fill it from.
#[derive(Debug)]
pub struct GitRepository {
    bare: PathBuf,
    work: PathBuf,
    home: PathBuf,
    url: String,
}

impl GitRepository {
    pub(super) fn create(bare: PathBuf, work: PathBuf, home: PathBuf, url: String) -> Self {
        fs::create_dir_all(&bare).expect("make the repository");
        fs::create_dir_all(&work).expect("make the work tree");
        let repository = Self {
            bare,
            work,
            home,
            url,
        };
        // `init --bare` refuses a work tree; the repository is served as a bare one all the same.
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Gives the URL to fetch from.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gives the work tree, for what the functions below cannot do.
    pub fn work_tree(&self) -> &Path {
        &self.work
    }

    /// Writes a file to the work tree.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.place(path), content).expect("write a file of the repository");
        self
    }

    /// Writes a file that can be executed.
    pub fn executable(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        self.file(path, content);
        fs::set_permissions(self.work.join(path), fs::Permissions::from_mode(0o755))
            .expect("make a file executable");
        self
    }

    /// Makes a symbolic link in the work tree.
    pub fn symlink(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.place(path)).expect("make a link of the repository");
        self
    }

    /// Records a submodule: its commit in the index, its URL in `.gitmodules`.
    pub fn submodule(&self, path: &str, url: &str, commit: &str) -> &Self {
        // Without the directory, the next `add --all` would take the entry out again.
        fs::create_dir_all(self.work.join(path)).expect("make the directory of the submodule");
        let entry = format!("160000,{commit},{path}");
        self.git(&["update-index", "--add", "--cacheinfo", &entry]);
        let file = self.work.join(".gitmodules");
        let mut modules = fs::read_to_string(&file).unwrap_or_default();
        modules.push_str(&format!(
            "[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"
        ));
        fs::write(file, modules).expect("write .gitmodules");
        self
    }

    /// Commits the work tree to the current branch and gives the id of the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Makes a branch at the current commit and goes to it.
    pub fn branch(&self, name: &str) -> &Self {
        self.git(&["checkout", "--quiet", "-b", name]);
        self
    }

    /// Goes to a branch, whatever the work tree holds.
    pub fn switch(&self, name: &str) -> &Self {
        self.git(&["checkout", "--quiet", "--force", name]);
        self
    }

    /// Makes a lightweight tag at the current commit.
    pub fn tag(&self, name: &str) -> &Self {
        self.git(&["tag", name]);
        self
    }

    /// Makes an annotated tag at the current commit.
    pub fn annotated_tag(&self, name: &str) -> &Self {
        self.git(&["tag", "--annotate", "--message", name, name]);
        self
    }

    /// Runs git on this repository and gives what it prints, without the line end.
    ///
    /// # Panics
    ///
    /// If git is missing or fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_with_input(arguments, "")
    }

    /// Runs git on this repository like [`GitRepository::git`], with a standard input.
    pub fn git_with_input(&self, arguments: &[&str], input: &str) -> String {
        let mut child = hermetic_git(&self.home)
            .current_dir(&self.work)
            .env("GIT_DIR", &self.bare)
            .env("GIT_WORK_TREE", &self.work)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run git");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A git that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("wait for git");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {message}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    fn place(&self, path: &str) -> PathBuf {
        let full = self.work.join(path);
        let parent = full.parent().expect("a path below the work tree");
        fs::create_dir_all(parent).expect("make the directories of the work tree");
        full
    }
}

/// Gives a git that knows nobody's settings and always commits at the same time.
pub(super) fn hermetic_git(home: &Path) -> Command {
    const WHO: [(&str, &str); 6] = [
        ("GIT_AUTHOR_NAME", "Test"),
        ("GIT_AUTHOR_EMAIL", "test@localhost"),
        ("GIT_AUTHOR_DATE", "1700000000 +0000"),
        ("GIT_COMMITTER_NAME", "Test"),
        ("GIT_COMMITTER_EMAIL", "test@localhost"),
        ("GIT_COMMITTER_DATE", "1700000000 +0000"),
    ];
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs(WHO);
    command
}
