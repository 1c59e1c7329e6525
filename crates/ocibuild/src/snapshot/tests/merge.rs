//! Plain trees in place of overlays, judged by the kernel's overlayfs: the same script
//! must give the same layer.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;

use super::*;
use crate::ownership::{self, Record};
use crate::snapshot::merge::{Merged, Options as MergeOptions};

/// Everything that a script changes gets one time, so that two runs give one layer.
const SETTLE: &str = "; find . -depth -newermt @1000001 -exec touch -h -d @5 {} +";

const BASE: &[&str] = &[
    "d again",
    "f again/1 one",
    "f again/2 two",
    "d again/sub",
    "f again/sub/x x",
    "f becomes-dir x",
    "d dir-mode",
    "f dir-mode/x x",
    "f gone x",
    "d gone-dir",
    "f gone-dir/x x",
    "f hard-a text",
    "h hard-z hard-a",
    "d hidden",
    "f hidden/below x",
    "d kept",
    "f kept/deep x",
    "l link-owner kept",
    "f mode-only x",
    "d move-dir",
    "f move-dir/x x",
    "f move-file text",
    "f owner-only x",
    "f pair-1 pair",
    "h pair-2 pair-1",
    "l retarget kept",
    "f same-size abcd",
    "f same-twice text",
    "d sub",
    "d sub/a",
    "d sub/a/b",
    "f sub/a/b/file x",
    "d to-file",
    "f to-file/x x",
    "f whited x",
];

const TOP: &[&str] = &[
    "d again",
    "f again/3 three",
    "d hidden",
    "o hidden",
    "f hidden/above y",
    "d sub",
    "d sub/a",
    "f sub/a/new y",
    "w whited",
];

const SCRIPTS: &[&str] = &[
    ":",
    "echo new > added; mkdir -p new/deep; echo x > new/deep/file; mkdir -p sub/a/more/and",
    "rm gone; rm -r gone-dir; rm hidden/above; rm -r sub",
    "rm -r to-file; echo file > to-file; rm becomes-dir; mkdir becomes-dir; : > becomes-dir/x",
    "rm -r again; mkdir again; echo 1 > again/1; mkdir again/sub again/other",
    "rm -r again hidden; mkdir again; mkdir hidden; echo x > hidden/below",
    "printf dcba > same-size; touch -d @1000000 same-size",
    "cp same-twice x; rm same-twice; mv x same-twice; touch -d @1000000 same-twice",
    "chmod 600 mode-only; chmod 4755 kept/deep; chmod 1777 dir-mode",
    "chown 12:34 owner-only; chown -h 5:6 link-owner; chown 7 sub",
    "ln -sfn becomes-dir retarget; ln -sf nowhere new-link",
    "ln same-size hard-b; ln same-size kept/hard-c",
    "echo x > new-a; ln new-a new-b; ln new-a kept/new-c",
    "rm pair-2",
    "rm pair-1; mkdir pair-1",
    "mkfifo pipe; mknod null c 1 3; mknod disk b 8 1; chmod 666 null",
    "mv move-file moved; mv move-dir moved-dir; mkdir t; rmdir t; : > t; rm t",
    "truncate -s 5000000 sparse; printf end >> sparse; head -c 200000 /dev/zero > zeros",
    "mkdir -p whited; echo x > whited/x; echo x >> sub/a/b/file; rm again/3",
    "rm -r * ; echo one > one",
    "cp -a /bin/true ping; setcap cap_net_raw+p ping; setcap cap_kill+p kept/deep",
];

fn options(identity: Identity, notes: Notes) -> MergeOptions {
    MergeOptions {
        identity,
        notes,
        pool: None,
    }
}

fn real() -> MergeOptions {
    options(Identity::Real, Notes::Trusted)
}

/// Two layers and their trees, lowest first.
struct Stack {
    dir: tempfile::TempDir,
    tocs: [Arc<Toc>; 2],
    trees: Vec<PathBuf>,
}

impl Stack {
    fn new(identity: &Identity, notes: Notes) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (base, base_blob) = layer(BASE);
        let (top, top_blob) = layer(TOP);
        let trees = vec![dir.path().join("base"), dir.path().join("top")];
        let mut lowers = RootView::new(&[]);
        for (tree, (toc, blob)) in trees.iter().zip([(&base, base_blob), (&top, top_blob)]) {
            let options = unpack::Options {
                notes,
                lowers: lowers.clone(),
                ..unpack::Options::new(identity.clone())
            };
            unpack::unpack(&blob[..], tree, &options).expect("an unpacked layer");
            lowers = lowers.with(toc.clone());
        }
        Self {
            dir,
            tocs: [base, top],
            trees,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn view(&self) -> RootView {
        RootView::new(&self.tocs)
    }

    /// Gives a new empty directory.
    fn empty(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir(&path).expect("a directory");
        path
    }

    fn diff(&self, upper: &Path, options: &MergeOptions) -> Finished {
        let options = diff::Options {
            notes: options.notes,
            ..diff::Options::new(options.identity.clone())
        };
        diff_of(upper, &self.view(), &options)
    }
}

fn run(script: &str, dir: &Path) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{script}");
}

#[test]
fn privileged_changes_are_those_of_an_overlay() {
    if !is_root() {
        return;
    }
    let stack = Stack::new(&Identity::Real, Notes::Trusted);
    for (number, script) in SCRIPTS.iter().enumerate() {
        let script = format!("{script}{SETTLE}");
        let highest_first = [&*stack.trees[1], &*stack.trees[0]];
        let Some((_dir, upper)) = over(&highest_first, &script) else {
            let note = b"skipped: no overlayfs here\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), note);
            return;
        };
        let want = stack.diff(&upper, &real());
        let place = stack.at(&format!("place-{number}"));
        let mut merged = Merged::take(&place, &stack.trees, &real()).expect("a tree");
        run(&script, merged.path());
        let upper = stack.empty(&format!("upper-{number}"));
        merged
            .changes_into(&upper, &BTreeSet::new())
            .expect("changes");
        let got = stack.diff(&upper, &real());
        assert_eq!(got.toc.entries(), want.toc.entries(), "{script}");
        assert_eq!(got.toc.whiteouts(), want.toc.whiteouts(), "{script}");
        assert_eq!(got.digest, want.digest, "{script}");
    }
}

/// What the kernel shows of the same trees.
#[test]
fn privileged_a_merged_tree_is_what_an_overlay_shows() {
    if !is_root() {
        return;
    }
    let stack = Stack::new(&Identity::Real, Notes::Trusted);
    let list = "find . -printf '%P %y %m %U:%G %s %T@ %l %n\\n' | sort";
    let highest_first = [&*stack.trees[1], &*stack.trees[0]];
    let script = format!("{list} > ../list");
    let Some((dir, _)) = over(&highest_first, &script) else {
        return;
    };
    let place = stack.at("place");
    let merged = Merged::take(&place, &stack.trees, &real()).expect("a tree");
    run(&format!("{list} > ../list"), merged.path());
    let lines = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).expect("a list");
        // Sizes and link counts of directories are the file system's business.
        let lines = text.lines().map(|line| match line.contains(" d ") {
            true => line.split(' ').take(4).collect::<Vec<_>>().join(" "),
            false => line.to_owned(),
        });
        lines.collect()
    };
    assert_eq!(lines(&place.join("list")), lines(&dir.path().join("list")));
}

/// An overlay breaks up files with several names when one of them is changed; a plain
/// tree does not, and the layer says so.
#[test]
fn files_with_several_names_stay_one() {
    let stack = Stack::new(&Identity::Recorded, Notes::User);
    let options = options(Identity::Recorded, Notes::User);
    let place = stack.at("place");
    let mut merged = Merged::take(&place, &stack.trees, &options).expect("a tree");
    run("echo more >> hard-a", merged.path());
    let upper = stack.empty("upper");
    let changes = merged
        .changes_into(&upper, &BTreeSet::new())
        .expect("changes");
    assert_eq!(changes, 2);
    let toc = stack.diff(&upper, &options).toc;
    let entry = toc.get(&path("hard-z")).expect("the other name");
    let target = path("hard-a");
    assert_eq!(entry.kind, Kind::Hardlink { target });
}

#[test]
fn records_go_along() {
    let stack = Stack::new(&Identity::Recorded, Notes::User);
    let options = options(Identity::Recorded, Notes::User);
    let mut merged = Merged::take(&stack.at("place"), &stack.trees, &options).expect("a tree");
    run("ln -s x new-link; mkfifo pipe; : > null", merged.path());
    let tree = fs::File::open(merged.path()).expect("a directory");
    let record = |mode, device| Record {
        uid: 33,
        gid: 34,
        mode,
        device,
    };
    let names = [
        ("kept", record(0o2755, None)),
        ("link-owner", record(0o777, None)),
        ("mode-only", record(0o4000, None)),
        ("new-link", record(0o777, None)),
        ("null", record(0o666, Some(ownership::Device::Char(1, 3)))),
        ("pipe", record(0o640, None)),
    ];
    for (name, record) in &names {
        ownership::write_at(&tree, OsStr::new(name), record).expect("a record");
    }
    let upper = stack.empty("upper");
    let changes = merged
        .changes_into(&upper, &BTreeSet::new())
        .expect("changes");
    assert_eq!(changes, names.len());
    let toc = stack.diff(&upper, &options).toc;
    for (name, record) in &names {
        let entry = toc.get(&path(name)).expect(name);
        assert_eq!(
            (entry.uid, entry.gid, entry.mode),
            (33, 34, record.mode),
            "{name}"
        );
    }
    let null = &toc.get(&path("null")).expect("a device").kind;
    assert_eq!(*null, Kind::Char { major: 1, minor: 3 });
    // A tree that is made of these layers has the records too.
    let lowers = [&stack.trees[..], &[upper]].concat();
    let merged = Merged::take(&stack.at("next"), &lowers, &options).expect("a tree");
    let tree = fs::File::open(merged.path()).expect("a directory");
    for (name, record) in names {
        let read = ownership::read_at(&tree, OsStr::new(name));
        assert_eq!(read, Ok(Some(record)), "{name}");
    }
}

#[test]
fn what_is_excluded_is_not_there() {
    let stack = Stack::new(&Identity::Recorded, Notes::User);
    let options = options(Identity::Recorded, Notes::User);
    let mut merged = Merged::take(&stack.at("place"), &stack.trees, &options).expect("a tree");
    run(
        "echo x > sub/mount; rm -r kept; echo y > gone; echo z > again/z",
        merged.path(),
    );
    let exclude = BTreeSet::from([path("sub/mount"), path("kept"), path("gone")]);
    let upper = stack.empty("upper");
    merged.changes_into(&upper, &exclude).expect("changes");
    let toc = stack.diff(&upper, &options).toc;
    let there: Vec<String> = toc.entries().iter().map(|it| it.path.to_string()).collect();
    assert_eq!(there, ["/", "/again", "/again/z"]);
    assert!(toc.whiteouts().is_empty());
}

/// What is made for a command and taken away afterwards is no change, a change of the
/// command beside it is one.
#[test]
fn what_is_settled_has_not_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let lower = dir.path().join("lower");
    for name in ["quiet/below", "busy"] {
        fs::create_dir_all(lower.join(name)).expect("a directory");
    }
    let place = dir.path().join("place");
    let mut merged =
        Merged::take(&place, &[lower], &options(Identity::Real, Notes::User)).expect("a tree");
    let dirs = ["quiet/below", "busy", "none"].map(|path| TreePath::parse(path).expect("a path"));
    let tree = merged.path().to_owned();
    for name in ["quiet/below/stub", "busy/stub"] {
        fs::write(tree.join(name), "").expect("a stub");
    }
    merged.settle(&dirs).expect("settled");
    fs::write(tree.join("busy/own"), "").expect("a change");
    for (path, want) in dirs.iter().zip([true, false, true]) {
        assert_eq!(merged.is_settled(path).expect("an answer"), want, "{path}");
    }
    for name in ["quiet/below/stub", "busy/stub"] {
        fs::remove_file(tree.join(name)).expect("no stub");
    }
    merged.settle(&dirs[..1]).expect("settled");
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).expect("a directory");
    merged
        .changes_into(&upper, &BTreeSet::new())
        .expect("changes");
    assert!(upper.join("busy/own").exists() && !upper.join("quiet").exists());
}

#[test]
fn ten_of_fifty_thousand() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("lower")).expect("a directory");
    for folder in 0..100 {
        let folder = at("lower").join(folder.to_string());
        fs::create_dir(&folder).expect("a directory");
        for file in 0..500 {
            fs::write(folder.join(file.to_string()), "").expect("a file");
        }
    }
    let options = options(Identity::Recorded, Notes::User);
    let mut merged = Merged::take(&at("place"), &[at("lower")], &options).expect("a tree");
    assert_eq!(merged.entries(), 50_100);
    for number in 0..10 {
        let file = format!("{}/{number}", number * 10);
        fs::write(merged.path().join(file), "x").expect("a file");
    }
    fs::create_dir(at("upper")).expect("a directory");
    let changes = merged
        .changes_into(&at("upper"), &BTreeSet::new())
        .expect("changes");
    assert_eq!(changes, 20);
    let toc = diff_of(
        &at("upper"),
        &RootView::new(&[]),
        &diff::Options::new(Identity::Single),
    )
    .toc;
    assert_eq!(toc.entries().len(), 21);
}

/// Root in a container may not set `trusted` attributes, and need not.
#[test]
fn privileged_root_without_administration() {
    if !is_root() {
        return;
    }
    let options = options(Identity::Real, Notes::User);
    if std::env::var_os("WITHOUT_ADMINISTRATION").is_none() {
        let program = format!(
            "exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \
            /proc/{}/exe --exact --nocapture \
            snapshot::tests::merge::privileged_root_without_administration",
            std::process::id()
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &program])
            .env("WITHOUT_ADMINISTRATION", "1");
        let output = command.output().expect("setpriv");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let stack = Stack::new(&Identity::Real, Notes::User);
    let mut merged = Merged::take(&stack.at("place"), &stack.trees, &options).expect("a tree");
    assert!(!merged.path().join("hidden/below").exists());
    run(
        "chown 12:34 owner-only; mknod null c 1 3; rm -r again; mkdir again",
        merged.path(),
    );
    let upper = stack.empty("upper");
    merged
        .changes_into(&upper, &BTreeSet::new())
        .expect("changes");
    let toc = stack.diff(&upper, &options).toc;
    let entry = toc.get(&path("owner-only")).expect("a file");
    assert_eq!((entry.uid, entry.gid), (12, 34));
    let removed: Vec<String> = toc.whiteouts().iter().map(ToString::to_string).collect();
    assert_eq!(removed, ["/again/1", "/again/2", "/again/3", "/again/sub"]);
    let refused = rustix::fs::setxattr(
        stack.at("upper"),
        "trusted.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    );
    assert_eq!(refused, Err(rustix::io::Errno::PERM));
}

#[test]
fn privileged_an_ordinary_user_can_merge() {
    if !is_root() {
        return;
    }
    for test in ["records_go_along", "files_with_several_names_stay_one"] {
        let mut command = Command::new("/proc/self/exe");
        command.uid(54321).gid(0);
        command.args(["--exact", &format!("snapshot::tests::merge::{test}")]);
        let output = command.output().expect("this program");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }
}

/// A container's own file system is an overlay, in which there are no whiteouts that are
/// devices.
#[test]
fn privileged_on_the_file_system_of_a_container() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let tests = [
        "merge::a_tree_goes_on_with_its_chain",
        "merge::privileged_root_without_administration",
        "merge::records_go_along",
        "merge::what_is_excluded_is_not_there",
        "recorded::any_tree_says_what_its_layer_says",
        "recorded::the_layer_is_the_one_that_was_unpacked",
        "recorded::whiteouts_and_opaque_directories",
    ];
    let script = format!(
        "cd {} && mkdir lower upper work merged && mount -t overlay overlay \
         -o lowerdir=lower,upperdir=upper,workdir=work merged && touch mounted && \
         export TMPDIR=$PWD/merged && for test in {}; do \
         /proc/{}/exe --exact snapshot::tests::$test || exit; done",
        dir.path().display(),
        tests.join(" "),
        std::process::id()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
    let output = command.output().expect("unshare");
    if !dir.path().join("mounted").exists() {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: no overlayfs here\n");
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("1 passed").count(), tests.len(), "{text}");
}

/// A chain of steps with a pool beside it.
struct Chain {
    stack: Stack,
    options: MergeOptions,
    number: usize,
}

impl Chain {
    fn new() -> Self {
        let stack = Stack::new(&Identity::Recorded, Notes::User);
        let pool = Some(stack.at("pool"));
        Self {
            stack,
            options: MergeOptions {
                pool,
                ..options(Identity::Recorded, Notes::User)
            },
            number: 0,
        }
    }

    fn take(&mut self) -> Merged {
        self.number += 1;
        let place = self.stack.at(&format!("place-{}", self.number));
        Merged::take(&place, &self.stack.trees, &self.options).expect("a tree")
    }

    /// Runs a script and moves what it changed to where layers are kept.
    fn step(&mut self, script: &str) -> bool {
        let mut merged = self.take();
        run(script, merged.path());
        let upper = self.stack.empty(&format!("upper-{}", self.number));
        merged
            .changes_into(&upper, &BTreeSet::new())
            .expect("changes");
        let was_waiting = merged.was_waiting();
        merged.give_back().expect("room in the pool");
        let layer = self.stack.at(&format!("layer-{}", self.number));
        fs::rename(upper, &layer).expect("a rename");
        self.stack.trees.push(layer);
        was_waiting
    }

    fn waiting(&self) -> usize {
        fs::read_dir(self.stack.at("pool")).expect("a pool").count()
    }
}

#[test]
fn a_tree_goes_on_with_its_chain() {
    let mut chain = Chain::new();
    assert!(!chain.step("echo 1 > one"));
    assert!(chain.step("echo 2 > two; rm gone; chmod 600 one"));
    assert!(chain.step("echo 3 >> one"));
    assert_eq!(chain.waiting(), 1);
    let upper = chain.stack.at("layer-3");
    let toc = chain.stack.diff(&upper, &chain.options).toc;
    let there: Vec<String> = toc.entries().iter().map(|it| it.path.to_string()).collect();
    assert_eq!(there, ["/", "/one"]);
    // The same layers, copied anew, are the same tree.
    let list = |dir: &Path| {
        let program = "find . -printf '%p %y %m %s %T@ %l\\n' | grep -v ' d ' | sort";
        let output = Command::new("sh")
            .args(["-c", program])
            .current_dir(dir)
            .output();
        String::from_utf8(output.expect("a list").stdout).expect("text")
    };
    let waiting = chain.take();
    let copied = chain.take();
    assert!(waiting.was_waiting() && !copied.was_waiting());
    assert_eq!(list(waiting.path()), list(copied.path()));
}

#[test]
fn other_chains_do_not_get_it() {
    let mut chain = Chain::new();
    chain.step("echo 1 > one");
    let layers = chain.stack.trees.clone();
    for other in [
        &layers[..2],
        &[layers[1].clone(), layers[0].clone(), layers[2].clone()],
    ] {
        chain.stack.trees = other.to_vec();
        assert!(!chain.take().was_waiting());
    }
    chain.stack.trees = layers;
    chain.options.notes = Notes::Trusted;
    assert!(!chain.take().was_waiting());
    chain.options.notes = Notes::User;
    assert!(chain.take().was_waiting());
}

#[test]
fn one_tree_has_one_user() {
    let mut chain = Chain::new();
    chain.step("echo 1 > one");
    let (lowers, options) = (&chain.stack.trees, &chain.options);
    let waiting = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let place = chain.stack.at(&format!("thread-{number}"));
                scope.spawn(move || {
                    let merged = Merged::take(&place, lowers, options).expect("a tree");
                    assert!(merged.path().join("one").exists());
                    merged.was_waiting()
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a tree"));
        joined.filter(|was_waiting| *was_waiting).count()
    });
    assert_eq!(waiting, 1);
    // What is not given back is gone.
    assert_eq!(chain.waiting(), 0);
    assert!(!chain.stack.at("thread-0").exists());
}

/// An entry without its table, or with half of one, is what a killed builder could leave
/// if it did not rename.
#[test]
fn what_is_not_whole_is_not_used() {
    for damage in ["rm table", "head -c 100 table > x; mv x table", ": > table"] {
        let mut chain = Chain::new();
        chain.step("echo 1 > one");
        let entry = fs::read_dir(chain.stack.at("pool")).expect("a pool").next();
        run(damage, &entry.expect("an entry").expect("an entry").path());
        assert!(!chain.take().was_waiting(), "{damage}");
        assert_eq!(chain.waiting(), 0, "{damage}");
    }
}

#[test]
fn few_trees_wait() {
    let mut chain = Chain::new();
    let base = chain.stack.trees.clone();
    for number in 0..6 {
        chain.stack.trees = base.clone();
        chain.step(&format!("echo {number} > file"));
    }
    assert_eq!(chain.waiting(), 4);
    // The last one is among them.
    assert!(chain.take().was_waiting());
}
