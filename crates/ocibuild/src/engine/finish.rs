//! The end of a build: configuration and manifest, and every output.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join_all;

use super::files::{Files, Packing};
use super::session::Session;
use super::stage::StageState;
use super::{Shared, exports, forms, layers};
use crate::build::{Image, PlatformImage};
use crate::cache::document;
use crate::content::Layer;
use crate::copy::{self, Destination, Selected, Source};
use crate::error::Error;
use crate::event::{Event, LayerSummary, TransferState};
use crate::image::history::fill_times;
use crate::image::manifest::Documents;
use crate::image::{ImageConfig, manifest};
use crate::layer::{Compression, Options, TreePath};
use crate::output::push::Part;
use crate::output::{
    self, AnnotationPlace, Content, Finished, Form, Output, archive, layout, push, rootfs,
};
use crate::registry::{self, Digest, Progress, Reference, Transfer};
use crate::snapshot::RootView;

/// The image of one platform.
struct Made<'a> {
    session: &'a Shared,
    layers: Vec<Layer>,
    config: ImageConfig,
    documents: Documents,
}

/// The images of all platforms in one form.
struct Shape<'a> {
    form: &'a Form,
    made: Vec<Made<'a>>,
    finished: Finished,
}

/// Makes the images of the target stages, one a platform, and hands them to every output.
pub(crate) async fn image(
    sessions: &[Shared],
    targets: &[Arc<StageState>],
) -> Result<Image, Error> {
    let Some(session) = sessions.first() else {
        return Err(nothing_to_build());
    };
    session.context.remember();
    let mut shapes = vec![shape(sessions, targets, &session.form).await?];
    for form in session.outputs.iter().filter_map(|o| o.form.as_ref()) {
        if shapes.iter().all(|shape| shape.form != form) {
            shapes.push(shape(sessions, targets, form).await?);
        }
    }
    let kept = &shapes[0];
    keep(session, &kept.finished, &kept.made)?;
    let outputs = session.outputs.iter().map(|wanted| {
        let form = wanted.form.as_ref().unwrap_or(&session.form);
        let shape = shapes.iter().find(|shape| shape.form == form);
        hand_over(session, shape.unwrap_or(kept), &wanted.output)
    });
    let pushed = try_join_all(outputs).await?;
    let Shape { made, finished, .. } = kept;
    let Some(first) = made.first() else {
        return Err(nothing_to_build());
    };
    Ok(Image {
        digest: finished.content.top().descriptor.digest,
        index: session.several.then(|| finished.content.top().clone()),
        manifest: first.documents.manifest.clone(),
        config_descriptor: first.documents.config.descriptor.clone(),
        config: first.config.clone(),
        layers: first.summaries(),
        platforms: made.iter().map(Made::result).collect(),
        steps: session.steps.records(),
        pushed: pushed.into_iter().flatten().collect(),
        commit: session.commit.clone(),
    })
}

fn nothing_to_build() -> Error {
    Error::invalid("there is no platform to build for")
}

/// Brings the images of all platforms into a form.
async fn shape<'a>(
    sessions: &'a [Shared],
    targets: &[Arc<StageState>],
    form: &'a Form,
) -> Result<Shape<'a>, Error> {
    let mut made = Vec::with_capacity(sessions.len());
    for (session, target) in sessions.iter().zip(targets) {
        made.push(made_as(session, target, form).await?);
    }
    let Some(first) = made.first() else {
        return Err(nothing_to_build());
    };
    let session = first.session;
    let finished = Finished {
        content: content(session.several, &made, first, form),
        names: session.names.iter().map(Reference::to_string).collect(),
        annotations: match session.several {
            true => form.annotations_of(AnnotationPlace::IndexDescriptor, None),
            false => {
                let platform = Some(&first.config.platform);
                form.annotations_of(AnnotationPlace::ManifestDescriptor, platform)
            }
        },
        created: session.created(),
    };
    Ok(Shape {
        form,
        made,
        finished,
    })
}

async fn made_as<'a>(
    session: &'a Shared,
    target: &StageState,
    form: &Form,
) -> Result<Made<'a>, Error> {
    let config = config(session, target);
    let layers = forms::layers(session, target, form).await?;
    form.check_layers(&layers)?;
    let blobs = layers.iter().map(|layer| layer.blob.clone());
    let mut annotations = form.annotations_of(AnnotationPlace::Manifest, Some(&config.platform));
    let cache = exports::inline(session, &layers);
    annotations.extend(cache.map(|text| (document::INLINE.to_owned(), text)));
    Ok(Made {
        documents: manifest::assemble_as(
            config.to_bytes(),
            blobs.collect(),
            form.media_types,
            annotations,
        ),
        session,
        layers,
        config,
    })
}

fn content(several: bool, made: &[Made<'_>], first: &Made<'_>, form: &Form) -> Content {
    if !several {
        return Content::Image(Box::new(first.documents.clone()));
    }
    let images = made.iter();
    let images = images.map(|made| (made.config.platform.clone(), made.documents.clone()));
    Content::index(images.collect(), form)
}

impl Made<'_> {
    fn summaries(&self) -> Vec<LayerSummary> {
        self.layers.iter().map(summary).collect()
    }

    fn result(&self) -> PlatformImage {
        PlatformImage {
            platform: self.config.platform.clone(),
            manifest: self.documents.manifest.clone(),
            config_descriptor: self.documents.config.descriptor.clone(),
            config: self.config.clone(),
            layers: self.summaries(),
        }
    }
}

fn summary(layer: &Layer) -> LayerSummary {
    LayerSummary {
        digest: layer.blob.digest,
        size: layer.blob.size,
        diff_id: layer.diff_id.0,
    }
}

fn config(session: &Session, target: &StageState) -> ImageConfig {
    let mut image = target.config.image.clone();
    if session.platform_given {
        image.platform = image.platform.overridden(&session.platform);
    }
    image.platform = image.platform.normalized();
    image.rootfs.diff_ids = target.layers.iter().map(|layer| layer.diff_id).collect();
    image.config.ensure_path();
    let labels = session.labels.iter().cloned();
    image.config.labels.extend(labels);
    if let Some(epoch) = session.epoch {
        // What an earlier build made is dated like what this one made.
        let text = crate::time::rfc3339(epoch);
        let ours = |entry: &&mut crate::image::History| {
            entry.comment.as_deref() == Some(crate::image::history::COMMENT)
        };
        for entry in image.history.iter_mut().filter(ours) {
            entry.created = Some(text.clone());
        }
    }
    let created = fill_times(&mut image.history, &session.created_text());
    image.created = Some(created);
    image
}

/// Keeps the documents in the store, named, so that the image can be pushed later.
fn keep(session: &Session, image: &Finished, made: &[Made<'_>]) -> Result<(), Error> {
    for document in image.content.documents() {
        session.store.put_blob(&document.bytes)?;
    }
    for made in made {
        session.store.put_origins(&made.layers)?;
    }
    if !image.names.is_empty() {
        session
            .store
            .name_images(layout::named_descriptors(image))?;
    }
    Ok(())
}

async fn hand_over(
    session: &Shared,
    shape: &Shape<'_>,
    output: &Output,
) -> Result<Option<Reference>, Error> {
    let (image, made) = (&shape.finished, &shape.made[..]);
    if let Output::Registry(reference) = output {
        push_image(session, image, made, reference).await?;
        return Ok(Some(reference.clone()));
    }
    let step = session.step(format!("exporting to {}", describe(output)));
    let result = export(session, image, made, output).await;
    step.end_plain(result)?;
    Ok(None)
}

fn describe(output: &Output) -> String {
    match output {
        Output::Registry(reference) => reference.to_string(),
        Output::OciDirectory(path) => format!("OCI layout {}", path.display()),
        Output::OciArchive(path) => format!("OCI archive {}", path.display()),
        Output::DockerArchive(path) => format!("Docker archive {}", path.display()),
        Output::Tar(path) => format!("tar {}", path.display()),
        Output::Local(path) => format!("directory {}", path.display()),
    }
}

async fn export(
    session: &Shared,
    image: &Finished,
    made: &[Made<'_>],
    output: &Output,
) -> Result<(), Error> {
    for made in made {
        layers::fetch_all(session, &made.layers).await?;
    }
    let (store, image, output) = (session.store.clone(), image.clone(), output.clone());
    match output {
        Output::Registry(_) => Ok(()),
        Output::OciDirectory(dest) => {
            let write = move || Ok(layout::write(&store, &image, &dest)?);
            session.block(write).await
        }
        Output::OciArchive(dest) => {
            let write = move || Ok(archive::write_oci(&store, &image, &dest)?);
            session.block(write).await
        }
        Output::DockerArchive(dest) => {
            let write = move || Ok(archive::write_docker(&store, &image, &dest)?);
            session.block(write).await
        }
        Output::Tar(dest) => {
            let folder = output::folder_of(&dest);
            let file = output::temporary(folder)?;
            for made in made {
                root_file_system(session, &made.layers, file.reopen()).await?;
            }
            Ok(output::persist(file, &dest)?)
        }
        Output::Local(dest) => {
            for made in made {
                let folder = match session.several {
                    true => dest.join(made.config.platform.to_string().replace('/', "_")),
                    false => dest.clone(),
                };
                local(session, &made.layers, folder).await?;
            }
            Ok(())
        }
    }
}

/// Writes the root file system into a directory.
async fn local(session: &Shared, layers: &[Layer], dest: PathBuf) -> Result<(), Error> {
    let scratch = session.store.scratch()?;
    let tar = scratch.path().join("rootfs.tar");
    root_file_system(session, layers, std::fs::File::create(&tar)).await?;
    let unpack = move || Ok(rootfs::write(&tar, &dest)?);
    let unpacked = session.block(unpack).await;
    drop(scratch);
    unpacked
}

/// Writes the merged root file system as one plain tar: the image copied onto nothing.
async fn root_file_system(
    session: &Shared,
    stack: &[Layer],
    file: std::io::Result<std::fs::File>,
) -> Result<(), Error> {
    let file = file.map_err(crate::layer::Error::Write)?;
    let view = layers::view(session, stack).await?;
    let everything = Selected::whole(b"", TreePath::root());
    let dest = Destination {
        path: "/".to_owned(),
        owner: None,
        mode: None,
    };
    let empty = RootView::new(&[]);
    let source = Source {
        files: 0,
        view: &view,
        selected: &everything,
        archive: None,
    };
    let placement = copy::place(&[source], &[], &empty, 1, &dest)?;
    let files = Files::Layers {
        layers: stack.to_vec(),
        view,
    };
    let mut packing = Packing::new(session, placement, vec![files], session.created());
    packing.options = Options {
        compression: Compression::None,
        ..packing.options
    };
    packing.into_file(session, file).await
}

async fn push_image(
    session: &Shared,
    image: &Finished,
    made: &[Made<'_>],
    reference: &Reference,
) -> Result<(), Error> {
    let step = session.step(format!("pushing {reference}"));
    let progress = progress(session, step.id);
    let pushed = Box::pin(push(session, image, made, reference, &progress)).await;
    if let Err(output::Error::Source(_)) = &pushed {
        // A layer that nothing but the registry needed cannot be had.
        for made in made {
            let absent = made.layers.iter();
            let absent = absent.filter(|layer| !session.store.has_blob(&layer.blob));
            absent.for_each(|layer| made.session.imports.doubt(layer));
        }
    }
    let digest = step.end_plain(pushed.map_err(Error::from))?;
    session.steps.events.emit(Event::Pushed {
        reference: session.client.reported_name(reference).to_string(),
        digest,
    });
    Ok(())
}

async fn push(
    session: &Shared,
    image: &Finished,
    made: &[Made<'_>],
    reference: &Reference,
    progress: &Progress,
) -> Result<Digest, output::Error> {
    let (store, client, scope) = (&session.store, &session.client, &session.cache_scope);
    let parts: Vec<Part<'_>> = made
        .iter()
        .map(|made| Part {
            image: &made.documents,
            layers: &made.layers,
        })
        .collect();
    match (&image.content, &parts[..]) {
        (Content::Image(image), [only]) => {
            push::push(
                store,
                client,
                image,
                only.layers,
                reference,
                scope,
                progress,
            )
            .await
        }
        _ => {
            let index = image.content.top();
            push::push_index(store, client, index, &parts, reference, scope, progress).await
        }
    }
}

fn progress(session: &Shared, step: crate::StepId) -> Progress {
    let events = session.steps.events.clone();
    Progress::new(move |transfer: Transfer| {
        events.emit(Event::StepProgress {
            step,
            item: transfer.digest.hex()[..12].to_owned(),
            current: transfer.current,
            total: transfer.total,
            state: match transfer.state {
                registry::TransferState::Moving => TransferState::Moving,
                registry::TransferState::Done => TransferState::Done,
                registry::TransferState::Exists => TransferState::Exists,
                registry::TransferState::Mounted => TransferState::Mounted,
            },
        });
    })
}
