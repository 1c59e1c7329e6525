//! `--cache-from` and `--cache-to`, in the form that `docker buildx build` has for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ocibuild::{CacheMode, CachePlace, CacheSource, CacheTarget};

use super::surroundings::reference;
use crate::error::Error;

/// The tag of a cache in a directory where none is said.
const USUAL_TAG: &str = "latest";

/// The parts of `type=…,key=value,…`.
struct Spec<'a> {
    flag: &'static str,
    text: &'a str,
    keys: BTreeMap<&'a str, &'a str>,
}

impl<'a> Spec<'a> {
    fn parse(flag: &'static str, text: &'a str) -> Result<Self, Error> {
        let mut keys = BTreeMap::new();
        for part in text.split(',') {
            let Some((key, value)) = part.split_once('=') else {
                let usage = format!("{flag} {text:?}: want KEY=VALUE,…");
                return Err(Error::Usage(usage));
            };
            keys.insert(key, value);
        }
        // How BuildKit can write a cache too; ours is always written so.
        for (key, only) in [("image-manifest", "true"), ("oci-mediatypes", "true")] {
            if keys.get(key) == Some(&only) {
                keys.remove(key);
            }
        }
        Ok(Self { flag, text, keys })
    }

    fn usage(&self, reason: &str) -> Error {
        Error::Usage(format!("{} {:?}: {reason}", self.flag, self.text))
    }

    fn needed(&mut self, key: &str) -> Result<&'a str, Error> {
        let value = self.keys.remove(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| self.usage(&format!("say {key}=…")))
    }

    fn end<T>(self, value: T) -> Result<T, Error> {
        match self.keys.keys().next() {
            Some(key) => Err(self.usage(&format!("unknown key {key:?}"))),
            None => Ok(value),
        }
    }
}

/// Reads `--cache-from`; a name alone is one in a registry.
pub(crate) fn source(text: &str) -> Result<CacheSource, Error> {
    if !text.contains('=') {
        return Ok(CacheSource::Registry(reference(text)?));
    }
    let mut spec = Spec::parse("--cache-from", text)?;
    let source = match spec.needed("type")? {
        "registry" => CacheSource::Registry(reference(spec.needed("ref")?)?),
        "local" => CacheSource::Local {
            path: PathBuf::from(spec.needed("src")?),
            tag: spec.keys.remove("tag").map(str::to_owned),
        },
        other => return Err(spec.usage(&format!("the type {other:?} is not supported"))),
    };
    spec.end(source)
}

/// Reads `--cache-to`; a name alone is one in a registry.
pub(crate) fn target(text: &str) -> Result<CacheTarget, Error> {
    if !text.contains('=') {
        let place = CachePlace::Registry(reference(text)?);
        return Ok(CacheTarget::new(place, CacheMode::Min));
    }
    let mut spec = Spec::parse("--cache-to", text)?;
    let kind = spec.needed("type")?;
    let place = match kind {
        "inline" => CachePlace::Inline,
        "registry" => CachePlace::Registry(reference(spec.needed("ref")?)?),
        "local" => CachePlace::Local {
            path: PathBuf::from(spec.needed("dest")?),
            tag: spec.keys.remove("tag").unwrap_or(USUAL_TAG).to_owned(),
        },
        other => return Err(spec.usage(&format!("the type {other:?} is not supported"))),
    };
    let mode = match spec.keys.remove("mode") {
        None | Some("min") => CacheMode::Min,
        Some("max") if kind == "inline" => {
            return Err(spec.usage("an image has only the steps of its own layers: mode=min"));
        }
        Some("max") => CacheMode::Max,
        Some(_) => return Err(spec.usage("mode is min or max")),
    };
    let target = CacheTarget::new(place, mode);
    let target = match spec.keys.remove("ignore-error") {
        None | Some("true") => target,
        Some("false") => target.required(),
        Some(_) => return Err(spec.usage("ignore-error is true or false")),
    };
    spec.end(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_have_the_forms_of_buildx() {
        let name = "127.0.0.1:5000/app:cache";
        let registry = CacheSource::Registry(name.parse().unwrap());
        assert_eq!(source(name).unwrap(), registry);
        let long = format!("type=registry,ref={name}");
        assert_eq!(source(&long).unwrap(), registry);
        let local = source("type=local,src=/c,tag=x").unwrap();
        let (path, tag) = ("/c".into(), Some("x".to_owned()));
        assert_eq!(local, CacheSource::Local { path, tag });

        let long = format!("type=registry,ref={name},mode=max,image-manifest=true");
        let max = target(&long).unwrap();
        assert_eq!((max.mode, max.required), (CacheMode::Max, false));
        let must = target("type=local,dest=/c,ignore-error=false").unwrap();
        assert!(must.required && must.mode == CacheMode::Min);
        assert_eq!(target("type=inline").unwrap().place, CachePlace::Inline);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "type=gha",
            "type=registry",
            "type=local,src=",
            "type=local,dest=/c",
            "type=registry,ref=a:b,more=1",
            "ref=a:b",
            "=",
        ] {
            assert!(source(text).is_err(), "{text}");
        }
        for text in [
            "type=inline,mode=max",
            "type=registry,ref=a:b,mode=all",
            "type=local,dest=/c,ignore-error=maybe",
            "type=registry,ref=a:b,image-manifest=false",
        ] {
            assert!(target(text).is_err(), "{text}");
        }
    }
}
