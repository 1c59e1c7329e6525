//! What all pages have: the frame, the headers that protect them, and how they refuse.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use ocibuild_store::StoreError;

use crate::api::error::ApiError;
use crate::logs::LogError;

/// Scripts, styles and pictures are this service's own files; nothing inline runs, nobody
/// else is asked, no other site shows the page in a frame. The referrer stays on this site
/// but is not dropped altogether: with `no-referrer` forms would be sent with the origin
/// `null`, and could not be told from those of other sites.
pub(super) const PROTECTION: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
];

/// A page.
pub(super) struct Frame<'a> {
    /// Leads from the address of the page to the list: `""`, `"../"` and so on.
    pub(super) root: &'a str,
    pub(super) title: &'a str,
    /// The script among the files, where it has one.
    pub(super) script: Option<&'a str>,
    pub(super) content: Markup,
}

impl Frame<'_> {
    fn markup(&self) -> Markup {
        let home = format!("{}./", self.root);
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) }
                    link rel="icon" href=(format!("{}assets/icon.svg", self.root));
                    link rel="stylesheet" href=(format!("{}assets/page.css", self.root));
                    @if let Some(script) = self.script {
                        script src=(format!("{}assets/{script}", self.root)) defer {}
                    }
                }
                body {
                    header.top {
                        a.home href=(home) {
                            img src=(format!("{}assets/icon.svg", self.root)) alt="" width="18" height="18";
                            "ocibuild"
                        }
                        nav { a href=(format!("{}docs/", self.root)) { "API" } }
                    }
                    main { (self.content) }
                }
            }
        }
    }
}

impl IntoResponse for Frame<'_> {
    fn into_response(self) -> Response {
        // A page is different every time, and may be for one tenant only.
        let headers = [(header::CACHE_CONTROL, "no-store")];
        (PROTECTION, headers, self.markup()).into_response()
    }
}

/// A refusal, as a page.
#[derive(Debug)]
pub(crate) struct Failure {
    root: &'static str,
    error: ApiError,
    /// The form came from another site.
    foreign: bool,
}

impl Failure {
    /// Refuses at an address from which `root` leads to the list.
    pub(super) fn below(root: &'static str, error: ApiError) -> Self {
        Self {
            root,
            error,
            foreign: false,
        }
    }

    /// Refuses a form of another site.
    pub(super) fn foreign(root: &'static str) -> Self {
        Self {
            foreign: true,
            ..Self::below(root, ApiError::NotFound)
        }
    }

    fn text(&self) -> (StatusCode, &'static str, &'static str) {
        if self.foreign {
            return (
                StatusCode::FORBIDDEN,
                "Not from here",
                "The form was sent by another site. Open the build here and try again.",
            );
        }
        match &self.error {
            ApiError::NotFound => (
                StatusCode::NOT_FOUND,
                "Not found",
                "There is no such page or build, or its record was deleted.",
            ),
            ApiError::Conflict(text) => (StatusCode::CONFLICT, "Not possible now", text),
            ApiError::TableUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not available",
                "The task table does not answer at the moment. Try again in a while.",
            ),
            ApiError::Invalid(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "Not understood",
                "A filter or the place in the list cannot be used.",
            ),
            ApiError::UnreadableBody | ApiError::BadBody(_) | ApiError::TooLarge { .. } => (
                StatusCode::BAD_REQUEST,
                "Not understood",
                "The form cannot be read.",
            ),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, title, text) = self.text();
        let content = html! {
            h1 { (title) }
            p { (text) }
            p { a href=(format!("{}./", self.root)) { "All builds" } }
        };
        let frame = Frame {
            root: self.root,
            title,
            script: None,
            content,
        };
        (status, frame).into_response()
    }
}

/// Makes refusals of what goes wrong at an address from which `root` leads to the list.
pub(super) trait At<T> {
    /// Refuses where there is an error.
    fn at(self, root: &'static str) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, ApiError> {
    fn at(self, root: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure::below(root, error))
    }
}

impl<T> At<T> for Result<T, StoreError> {
    fn at(self, root: &'static str) -> Result<T, Failure> {
        self.map_err(ApiError::from).at(root)
    }
}

impl<T> At<T> for Result<T, LogError> {
    fn at(self, root: &'static str) -> Result<T, Failure> {
        self.map_err(ApiError::from).at(root)
    }
}
