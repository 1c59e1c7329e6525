//! What a stage begins with: nothing, another stage, or an image. An image is loaded
//! once a build, however many stages begin with it.

use std::sync::Arc;

use super::files::Files;
use super::stage::{StageState, stage};
use super::{Shared, copy_step};
use crate::build::NamedContext;
use crate::error::Error;
use crate::graph::{Base, CopySource, CopyStep, PlannedStage, StageConfig};
use crate::image::manifest::Document;
use crate::image::{History, ImageConfig};
use crate::registry::{Platform, Reference, media_type};
use crate::source::{self, BaseImage};

/// A stage before its first instruction.
pub(crate) struct Begun {
    pub(crate) state: StageState,
    /// What ONBUILD of the base asks for.
    pub(crate) triggers: Vec<String>,
}

/// Loads the base of a stage.
pub(crate) async fn begin(
    session: &Shared,
    planned: &PlannedStage,
    step_name: &str,
) -> Result<Begun, Error> {
    let platform = &planned.platform;
    let image = match &planned.base {
        Base::Scratch => return Ok(scratch(session, platform)),
        Base::Stage(index) => return child(session, *index).await,
        Base::Image(reference) => {
            let step = session.step(step_name);
            step.end_plain(image(session, reference, Some(platform)).await)?
        }
        Base::Context(name) if session.trees.has(name) => {
            return directory(session, name, platform, step_name).await;
        }
        Base::Context(name) => {
            let step = session.step(step_name);
            step.end_plain(named(session, name, Some(platform)).await)?
        }
    };
    Ok(from_image(session, image))
}

fn scratch(session: &Shared, platform: &Platform) -> Begun {
    let image = BaseImage {
        config: ImageConfig::scratch(platform),
        layers: Vec::new(),
        manifest: Document::new(media_type::MANIFEST, Vec::new()),
    };
    from_image(session, image)
}

/// The files of a directory as the first layer of an image that has nothing else.
async fn directory(
    session: &Shared,
    name: &str,
    platform: &Platform,
    step_name: &str,
) -> Result<Begun, Error> {
    let mut begun = scratch(session, platform);
    let Some(tree) = session.trees.get(name).await? else {
        return Ok(begun);
    };
    let everything = CopyStep {
        sources: vec![CopySource::Path("/".to_owned())],
        dest: "/".to_owned(),
        ..CopyStep::default()
    };
    let step = session.step(step_name);
    let made = copy_step::made(session, everything, Files::Context(tree.context)).await;
    let (_, made) = step.end(made, |(cached, made)| (*cached, Some(made.summary())))?;
    let history = History {
        created: Some(made.created.clone()),
        ..History::of(format!("FROM {name}"), true)
    };
    begun.state.config.image.history.push(history);
    begun.state.layers.push(made.into_layer());
    Ok(begun)
}

async fn child(session: &Shared, index: usize) -> Result<Begun, Error> {
    let parent = stage(session, index).await.map_err(Error::Shared)?;
    let (config, triggers) = parent.config.child();
    let layers = parent.layers.clone();
    let state = StageState {
        given: parent.given.clone(),
        layers,
        config,
    };
    Ok(Begun { state, triggers })
}

fn from_image(session: &Shared, image: BaseImage) -> Begun {
    let (config, triggers) = StageConfig::of_image(&session.plan, image.config);
    let layers = image.layers;
    let given = layers.iter().map(|layer| layer.diff_id).collect();
    let state = StageState {
        layers,
        config,
        given,
    };
    Begun { state, triggers }
}

/// Loads an image of a registry, for the platform of the build where none is given.
pub(crate) async fn image(
    session: &Shared,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<BaseImage, Error> {
    let platform = platform.unwrap_or(&session.platform);
    let cell = session.base_cell(format!("{reference} {platform}"));
    let loaded = cell.get_or_init(|| async {
        let loaded =
            source::from_registry(&session.store, &session.client, reference, platform).await;
        loaded.map_err(|error| Arc::new(Error::from(error)))
    });
    loaded.await.clone().map_err(Error::Shared)
}

/// Loads what a name was given to stand for, where that is an image.
pub(crate) async fn named(
    session: &Shared,
    name: &str,
    platform: Option<&Platform>,
) -> Result<BaseImage, Error> {
    match session.named.get(name) {
        Some(context) if context.is_files() => Err(Error::invalid(format!(
            "the name {name:?} stands for files, not for an image"
        ))),
        Some(context) => of_context(session, context, platform).await,
        None => Err(Error::invalid(format!(
            "nothing stands for the name {name:?}"
        ))),
    }
}

/// Loads the image that a context is.
pub(crate) async fn of_context(
    session: &Shared,
    context: &NamedContext,
    platform: Option<&Platform>,
) -> Result<BaseImage, Error> {
    match context {
        NamedContext::Image(reference) => image(session, reference, platform).await,
        NamedContext::OciLayout { path, name } => {
            let (path, name) = (path.clone(), name.clone());
            let platform = platform.unwrap_or(&session.platform).clone();
            session
                .block(move || Ok(source::from_layout(&path, name.as_deref(), &platform)?))
                .await
        }
        _ => Err(Error::invalid("the context is no image")),
    }
}

impl super::session::Session {
    /// Tells the user something that does not stop the build.
    pub(crate) fn warn(&self, message: String) {
        if self.steps.is_news(message.clone()) {
            let warning = crate::event::Event::Warning { message };
            self.steps.events.emit(warning);
        }
    }
}
