//! `--output`, `--push` and `--annotation`, in the form that `docker buildx build` has for
//! them, and the flags of `push` that say the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ocibuild::layer::Compression;
use ocibuild::registry::Reference;
use ocibuild::{Annotation, Build, Form, InvalidAnnotation, MediaTypes, Output};

use super::surroundings::reference;
use crate::args::{BuildArgs, FormArgs};
use crate::error::Error;

/// What one `--output` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    outputs: Vec<Output>,
    /// In which form, where it says so.
    form: Option<Form>,
}

/// Gives a build the outputs of its flags. The form of the first output that has one is that
/// of the image itself: the one that is kept and reported.
pub(crate) fn add(mut build: Build, args: &BuildArgs, names: &[Reference]) -> Result<Build, Error> {
    let annotations = annotations(&args.annotation)?;
    let annotated = |mut form: Form| {
        form.annotations.splice(0..0, annotations.iter().cloned());
        form
    };
    let mut own = None;
    for spec in &args.output {
        let Asked { outputs, form } = output(spec, names)?;
        let form = form.map(annotated);
        for output in outputs {
            build = match &form {
                Some(form) => build.output_as(output, form.clone()),
                None => build.output(output),
            };
        }
        own = own.or(form);
    }
    if args.push {
        if names.is_empty() {
            return Err(Error::Usage("--push needs a name: say -t REF".to_owned()));
        }
        for name in names {
            build = build.output(Output::Registry(name.clone()));
        }
    }
    Ok(build.form(own.unwrap_or_else(|| annotated(Form::default()))))
}

/// Reads the flags of `push`; none where the image is to stay as it is.
pub(crate) fn form_of(args: &FormArgs) -> Result<Option<Form>, Error> {
    let usage = |reason: String| Error::Usage(format!("--compression: {reason}"));
    let named = args.compression.as_deref().map(compression).transpose();
    let form = Form {
        compression: named.map_err(usage)?,
        level: args.compression_level,
        force: true,
        media_types: args.media_types.map(MediaTypes::from).unwrap_or_default(),
        annotations: annotations(&args.annotation)?,
    };
    // Whether there is an index, the image will tell.
    form.check(true)
        .map_err(|error| Error::Usage(error.to_string()))?;
    let is_asked = form.compression.is_some()
        || form.level.is_some()
        || args.media_types.is_some()
        || !form.annotations.is_empty();
    Ok(is_asked.then_some(form))
}

fn annotations(texts: &[String]) -> Result<Vec<Annotation>, Error> {
    let read: Result<Vec<_>, InvalidAnnotation> =
        texts.iter().map(|text| Annotation::parse(text)).collect();
    let read = read.map_err(|error| Error::Usage(format!("--annotation: {error}")))?;
    Ok(read.into_iter().flatten().collect())
}

/// Reads `type=…,dest=…`; a path alone is a directory for the root file system.
fn output(spec: &str, names: &[Reference]) -> Result<Asked, Error> {
    let usage = |reason: &str| Error::Usage(format!("--output {spec:?}: {reason}"));
    if !spec.contains('=') {
        return Ok(Asked {
            outputs: vec![Output::Local(spec.into())],
            form: None,
        });
    }
    let mut keys = BTreeMap::new();
    for part in fields(spec) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| usage("want KEY=VALUE,…"))?;
        keys.insert(key.to_owned(), value.to_owned());
    }
    let kind = keys.remove("type").ok_or_else(|| usage("no type"))?;
    let dest = keys.remove("dest");
    let name = keys.remove("name");
    let push = flag(&mut keys, &["push"]).map_err(|reason| usage(&reason))?;
    let form = match kind.as_str() {
        // What a file system holds has no form.
        "tar" | "local" => None,
        _ => form(&mut keys).map_err(|reason| usage(&reason))?,
    };
    if let Some(key) = keys.keys().next() {
        return Err(usage(&format!("unknown key {key:?}")));
    }
    let path = || {
        dest.as_ref()
            .map(PathBuf::from)
            .ok_or_else(|| usage("say dest=PATH"))
    };
    let is_folder = |dest: &String| dest.ends_with('/') || Path::new(dest).is_dir();
    let outputs = match kind.as_str() {
        "oci" if dest.as_ref().is_some_and(is_folder) => vec![Output::OciDirectory(path()?)],
        "oci" => vec![Output::OciArchive(path()?)],
        "docker" => vec![Output::DockerArchive(path()?)],
        "tar" => vec![Output::Tar(path()?)],
        "local" => vec![Output::Local(path()?)],
        "image" if push != Some(true) => Vec::new(),
        "registry" | "image" => match name {
            Some(name) => vec![Output::Registry(reference(&name)?)],
            None if names.is_empty() => return Err(usage("say name=REF or -t REF")),
            None => names.iter().cloned().map(Output::Registry).collect(),
        },
        other => return Err(usage(&format!("unknown type {other:?}"))),
    };
    Ok(Asked { outputs, form })
}

/// Cuts at the commas that are in no quotes, and takes the quotes off: `a=b,"c=d,e"`.
fn fields(spec: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for character in spec.chars() {
        match (character, fields.last_mut()) {
            ('"', _) => is_quoted = !is_quoted,
            (',', _) if !is_quoted => fields.push(String::new()),
            (character, Some(field)) => field.push(character),
            (_, None) => {}
        }
    }
    fields
}

/// Takes the keys of a form out; none where there is none of them.
fn form(keys: &mut BTreeMap<String, String>) -> Result<Option<Form>, String> {
    let before = keys.len();
    let mut form = Form {
        compression: match keys.remove("compression") {
            Some(name) => Some(compression(&name)?),
            None => None,
        },
        level: level(take(keys, &["compression-level", "level"]))?,
        force: flag(keys, &["force-compression", "force"])?.unwrap_or_default(),
        media_types: media_types(keys)?,
        annotations: Vec::new(),
    };
    let annotations: Vec<String> = keys
        .keys()
        .filter(|key| key.starts_with("annotation"))
        .cloned()
        .collect();
    for key in annotations {
        let value = keys.get(&key).cloned().unwrap_or_default();
        if let Some(annotation) = Annotation::of_output(&key, &value) {
            form.annotations
                .push(annotation.map_err(|error| error.to_string())?);
            keys.remove(&key);
        }
    }
    form.check(true).map_err(|error| error.to_string())?;
    Ok((keys.len() < before).then_some(form))
}

/// Takes a key that has several names.
fn take(keys: &mut BTreeMap<String, String>, names: &[&str]) -> Option<String> {
    names
        .iter()
        .fold(None, |found, name| keys.remove(*name).or(found))
}

fn flag(keys: &mut BTreeMap<String, String>, names: &[&str]) -> Result<Option<bool>, String> {
    match take(keys, names).as_deref() {
        None => Ok(None),
        // buildx takes a key without a value for yes.
        Some("true" | "1" | "") => Ok(Some(true)),
        Some("false" | "0") => Ok(Some(false)),
        Some(other) => Err(format!("{} is true or false, not {other:?}", names[0])),
    }
}

fn compression(name: &str) -> Result<Compression, String> {
    match name {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "uncompressed" | "none" => Ok(Compression::None),
        other => Err(format!(
            "the compression is gzip, zstd or uncompressed, not {other:?}"
        )),
    }
}

fn level(text: Option<String>) -> Result<Option<i32>, String> {
    let number = |text: String| {
        text.parse()
            .map_err(|_| format!("the level is a number, not {text:?}"))
    };
    text.map(number).transpose()
}

fn media_types(keys: &mut BTreeMap<String, String>) -> Result<MediaTypes, String> {
    let oci = flag(keys, &["oci-mediatypes"])?;
    match (keys.remove("mediatypes").as_deref(), oci) {
        (Some("oci"), _) | (None, None | Some(true)) => Ok(MediaTypes::Oci),
        (Some("docker"), _) | (None, Some(false)) => Ok(MediaTypes::Docker),
        (Some(other), _) => Err(format!("mediatypes is oci or docker, not {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(spec: &str) -> Asked {
        output(spec, &["example.org/a:1".parse().unwrap()]).unwrap()
    }

    #[test]
    fn outputs_have_the_forms_of_buildx() {
        let registry = vec![Output::Registry("example.org/a:1".parse().unwrap())];
        assert_eq!(asked("out").outputs, [Output::Local("out".into())]);
        for spec in ["type=registry", "type=image,push=true", "type=image,push=1"] {
            assert_eq!(asked(spec).outputs, registry, "{spec}");
            assert_eq!(asked(spec).form, None, "{spec}");
        }
        assert!(asked("type=image").outputs.is_empty());
        let form = |spec: &str| asked(&format!("type=oci,dest=o,{spec}")).form.unwrap();
        let zstd = Form {
            compression: Some(Compression::Zstd),
            level: Some(22),
            force: true,
            ..Form::default()
        };
        let long = "compression=zstd,compression-level=22,force-compression=true";
        assert_eq!(form(long), zstd);
        assert_eq!(form("compression=zstd,level=22,force=true"), zstd);
        let plain = Form {
            compression: Some(Compression::None),
            media_types: MediaTypes::Docker,
            ..Form::default()
        };
        assert_eq!(form("compression=uncompressed,oci-mediatypes=false"), plain);
        assert_eq!(form("compression=none,mediatypes=docker"), plain);
        let annotated = form("\"annotation.k=a,b\",annotation-index.l=c");
        let read = Annotation::parse("k=a,b").unwrap().into_iter();
        let both: Vec<_> = read
            .chain(Annotation::parse("index:l=c").unwrap())
            .collect();
        assert_eq!(annotated.annotations.len(), 2);
        assert!(both.iter().all(|one| annotated.annotations.contains(one)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for spec in [
            "dest=o",
            "type=oci",
            "type=else,dest=o",
            "type=oci,dest=o,compression=estargz",
            "type=oci,dest=o,compression=gzip,level=10",
            "type=oci,dest=o,level=10",
            "type=oci,dest=o,level=x",
            "type=oci,dest=o,force=maybe",
            "type=oci,dest=o,mediatypes=x",
            "type=oci,dest=o,annotation-layer.k=v",
            "type=oci,dest=o,annotation=v",
            "type=local,dest=o,compression=zstd",
            "type=tar,dest=o,annotation.k=v",
            "type=registry,push=maybe",
        ] {
            assert!(output(spec, &["a:1".parse().unwrap()]).is_err(), "{spec}");
        }
        assert!(output("type=registry", &[]).is_err());
    }
}
