//! Files as git's own checkout writes them: what `git clone` gives and what a checkout
//! gives are compared byte by byte, with modes and links.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use ocibuild::Cancel;
use ocibuild::content::ContentStore;
use ocibuild::git::{self, GitSource, Policy};
use ocibuild::testing::{GitRepository, GitServer};

/// What a name stands for: its mode, and its content or target.
type Files = BTreeMap<String, (String, Vec<u8>)>;

fn files(root: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let is_git = path.file_name().is_some_and(|name| name == ".git");
            let is_executable = metadata.permissions().mode() & 0o100 != 0;
            let (kind, content) = if is_git {
                continue;
            } else if metadata.is_dir() {
                folders.push(path.clone());
                ("folder", Vec::new())
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                ("link", target.as_os_str().as_encoded_bytes().to_vec())
            } else if is_executable {
                ("program", fs::read(&path).unwrap())
            } else {
                ("file", fs::read(&path).unwrap())
            };
            let name = path.strip_prefix(root).unwrap();
            let name = name
                .as_os_str()
                .as_encoded_bytes()
                .escape_ascii()
                .to_string();
            found.insert(name, (kind.to_owned(), content));
        }
    }
    found
}

/// Commits blobs as they are, whatever the attributes would make of them, and gives what git
/// and what we make of them.
fn both(repository: &GitRepository, blobs: &[(&str, &[u8])]) -> (Files, Files) {
    for (path, content) in blobs {
        let outside = repository.work_tree().with_extension("blob");
        fs::write(&outside, content).unwrap();
        let outside = outside.to_str().unwrap();
        let id = repository.git(&["hash-object", "-w", "--no-filters", outside]);
        let entry = format!("100644,{id},{path}");
        repository.git(&["update-index", "--add", "--cacheinfo", &entry]);
    }
    repository.git(&["commit", "--quiet", "--message", "blobs"]);
    compared(repository)
}

fn compared(repository: &GitRepository) -> (Files, Files) {
    let [store, theirs, ours] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let cloned = Command::new("git")
        .args(["clone", "--quiet", "--recurse-submodules", repository.url()])
        .arg(theirs.path())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .status()
        .unwrap();
    assert!(cloned.success());
    let store = ContentStore::open(store.path()).unwrap();
    let client = git::Client::new(Policy::default()).mirrors(store);
    let source = GitSource::parse(repository.url()).unwrap();
    let done = client.checkout(&source, ours.path(), &Cancel::new(), &|_| {});
    done.unwrap();
    (files(theirs.path()), files(ours.path()))
}

fn assert_same((theirs, ours): (Files, Files)) -> Files {
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (name, content) in &theirs {
        assert_eq!(&ours[name], content, "{name}");
    }
    ours
}

const LINES: &[u8] = b"one\ntwo\n";
const WINDOWS: &[u8] = b"one\r\ntwo\r\n";
const MIXED: &[u8] = b"one\r\ntwo\nthree\rfour";
const BINARY: &[u8] = b"one\0\ntwo\n";

#[test]
fn line_ends() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    let attributes = b"*.crlf text eol=crlf\n*.lf text eol=lf\n*.auto text=auto\n\
        *.autocrlf text=auto eol=crlf\n*.none -text\n*.bin binary\n*.text text\n\
        *.bat eol=crlf\n*.unset !text eol=crlf\n[attr]windows text eol=crlf\n\
        *.macro windows\n*.old crlf=input\n*.older crlf\n*.oldest -crlf\n";
    let mut blobs: Vec<(String, &[u8])> = vec![
        (".gitattributes".to_owned(), attributes),
        (
            "sub/.gitattributes".to_owned(),
            b"*.crlf -text\n*.lf eol=crlf\nname text eol=crlf\n",
        ),
        ("sub/name".to_owned(), LINES),
    ];
    let kinds = [
        "crlf", "lf", "auto", "autocrlf", "none", "bin", "text", "bat", "unset", "macro", "old",
        "older", "oldest", "nothing",
    ];
    for kind in kinds {
        for (name, content) in [
            ("lines", LINES),
            ("windows", WINDOWS),
            ("mixed", MIXED),
            ("binary", BINARY),
            ("empty", b""),
            ("end", b"no end"),
        ] {
            for folder in ["", "sub/", "sub/deep/"] {
                blobs.push((format!("{folder}{name}.{kind}"), content));
            }
        }
    }
    let blobs: Vec<(&str, &[u8])> = blobs.iter().map(|(name, blob)| (&**name, *blob)).collect();
    let files = assert_same(both(&repository, &blobs));
    assert_eq!(files["lines.crlf"].1, WINDOWS);
    assert_eq!(files["sub/lines.crlf"].1, LINES);
    assert_eq!(files["sub/name"].1, WINDOWS);
    assert_eq!(files["lines.bin"].1, LINES);
}

#[test]
fn encodings() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    let attributes = b"*.16 text working-tree-encoding=UTF-16\n\
        *.16le text working-tree-encoding=UTF-16LE\n\
        *.16be text working-tree-encoding=UTF-16BE\n\
        *.bom text working-tree-encoding=UTF-16LE-BOM\n\
        *.crlf text working-tree-encoding=UTF-16LE eol=crlf\n\
        *.latin text working-tree-encoding=ISO-8859-1\n\
        *.sjis text working-tree-encoding=SHIFT-JIS\n\
        *.utf8 text working-tree-encoding=UTF-8\n";
    let text = "gr\u{fc}n\nzwei\n".as_bytes();
    let japanese = "\u{65e5}\u{672c}\n".as_bytes();
    let files = assert_same(both(
        &repository,
        &[
            (".gitattributes", attributes),
            ("a.16", text),
            ("a.16le", text),
            ("a.16be", text),
            ("a.bom", text),
            ("a.crlf", text),
            ("a.latin", text),
            ("a.sjis", japanese),
            ("a.utf8", text),
            ("empty.16", b""),
        ],
    ));
    assert_eq!(files["a.latin"].1, b"gr\xfcn\nzwei\n");
}

#[test]
fn an_encoding_that_nobody_knows_is_an_error_that_names_the_file() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    repository
        .file(".gitattributes", "*.old working-tree-encoding=EBCDIC-37\n")
        .commit("attributes");
    let blob = repository.git_with_input(&["hash-object", "-w", "--stdin", "--no-filters"], "a");
    let entry = format!("100644,{blob},folder/a.old");
    repository.git(&["update-index", "--add", "--cacheinfo", &entry]);
    repository.git(&["commit", "--quiet", "--message", "file"]);
    let source = GitSource::parse(repository.url()).unwrap();
    let dest = tempfile::tempdir().unwrap();
    let client = git::Client::new(Policy::default());
    let error = client.checkout(&source, dest.path(), &Cancel::new(), &|_| {});
    assert_eq!(
        error.unwrap_err().to_string(),
        "\"folder/a.old\" is to be written in the encoding \"EBCDIC-37\", which is not known"
    );
}

#[test]
fn ids_and_what_is_for_archives_only() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    let files = assert_same(both(
        &repository,
        &[
            (
                ".gitattributes",
                b"*.id ident\nsecret export-ignore\n*.subst export-subst\nfolder export-ignore\n",
            ),
            ("a.id", b"$Id$ and $Id: old $ and $Id and $Id:$\n"),
            ("b.id", b"nothing\n$Id$\r\n"),
            ("secret", b"stays"),
            ("folder/file", b"stays too"),
            ("a.subst", b"$Format:%H$\n"),
        ],
    ));
    assert!(files["a.id"].1.starts_with(b"$Id: "));
    assert_eq!(files["secret"].1, b"stays");
    assert_eq!(files["folder/file"].1, b"stays too");
    assert_eq!(files["a.subst"].1, b"$Format:%H$\n");
}

#[test]
fn links_modes_and_odd_names() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    repository
        .file(".gitattributes", "* text eol=crlf\n")
        .executable("run.sh", "#!/bin/sh\necho\n")
        .symlink("to-file", "folder/file")
        .symlink("to-nowhere", "../../nowhere\n")
        .symlink("to-folder", "folder")
        .file("folder/file", "one\ntwo\n")
        .file("with space", "")
        .file("tab\there", "")
        .file("quote\"s", "")
        .file("\u{fc}ml\u{e4}ut", "")
        .file("-dash", "")
        .file(".hidden/.deep", "")
        .commit("odd");
    assert_same(compared(&repository));
}

#[test]
fn submodules_have_attributes_of_their_own() {
    let server = GitServer::start();
    let inner = server.repository("libs/inner.git");
    let pinned = inner.file("f.txt", "one\n").commit("pinned");
    inner.file("f.txt", "later\n").commit("later");
    let library = server.repository("libs/library.git");
    library.submodule("third/inner", "../inner.git", &pinned);
    library.file(".gitattributes", "*.txt text eol=crlf\n");
    let library_commit = library.file("f.txt", "one\n").commit("library");
    let app = server.repository("group/app.git");
    app.submodule(
        "vendor/deep/library",
        "../../libs/library.git",
        &library_commit,
    );
    app.submodule("twin", "../../libs/inner.git", &pinned);
    app.file("f.txt", "one\n").commit("app");
    let files = assert_same(compared(&app));
    assert_eq!(files["f.txt"].1, b"one\n");
    assert_eq!(files["vendor/deep/library/f.txt"].1, b"one\r\n");
    assert_eq!(files["vendor/deep/library/third/inner/f.txt"].1, b"one\n");
    assert_eq!(files["twin/f.txt"].1, b"one\n");
}
