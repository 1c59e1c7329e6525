//! The form of a build request: url-encoded as Darwin's services send it, or multipart as
//! curl does. As with FastAPI, the last of several values counts and unknown fields do not.

use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};

use super::error::ApiError;

/// The fields of a build request as they came.
#[derive(Debug, Default)]
pub(crate) struct BuildForm {
    pub(crate) app_name: Option<String>,
    pub(crate) image_tag: Option<String>,
    pub(crate) git_repo: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) app_dir: Option<String>,
    pub(crate) dockerfile: Option<Upload>,
}

/// What came under the name `dockerfile`.
#[derive(Debug)]
pub(crate) enum Upload {
    /// A file.
    File(Bytes),
    /// A text where a file belongs.
    Text,
}

impl BuildForm {
    /// Reads the form. A body that is no form has no fields.
    pub(crate) async fn read(request: Request, limit: usize) -> Result<Self, ApiError> {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        if content_type.starts_with("multipart/form-data") {
            let multipart = Multipart::from_request(request, &())
                .await
                .map_err(|_| ApiError::UnreadableBody)?;
            Self::from_multipart(multipart)
                .await
                .map_err(|error| body_error(error.status(), limit))
        } else if content_type.starts_with("application/x-www-form-urlencoded") {
            let body = Bytes::from_request(request, &())
                .await
                .map_err(|error| body_error(error.status(), limit))?;
            Ok(Self::from_urlencoded(&body))
        } else {
            Ok(Self::default())
        }
    }

    fn from_urlencoded(body: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            form.set(&name, value.into_owned());
        }
        form
    }

    async fn from_multipart(mut multipart: Multipart) -> Result<Self, MultipartError> {
        let mut form = Self::default();
        while let Some(field) = multipart.next_field().await? {
            let name = field.name().unwrap_or_default().to_owned();
            if name == "dockerfile" && field.file_name().is_some() {
                form.dockerfile = upload(field).await?;
            } else {
                let value = field.bytes().await?;
                form.set(&name, String::from_utf8_lossy(&value).into_owned());
            }
        }
        Ok(form)
    }

    /// Keeps a text field; an empty one counts as absent.
    fn set(&mut self, name: &str, value: String) {
        let value = (!value.is_empty()).then_some(value);
        match name {
            "app_name" => self.app_name = value,
            "image_tag" => self.image_tag = value,
            "git_repo" => self.git_repo = value,
            "branch" => self.branch = value,
            "app_dir" => self.app_dir = value,
            "dockerfile" => self.dockerfile = value.map(|_| Upload::Text),
            _ => {}
        }
    }
}

/// Reads a file. One without a name is what a browser sends when none was chosen.
async fn upload(field: Field<'_>) -> Result<Option<Upload>, MultipartError> {
    let chosen = field.file_name().is_some_and(|name| !name.is_empty());
    let content = field.bytes().await?;
    Ok((chosen || !content.is_empty()).then_some(Upload::File(content)))
}

fn body_error(status: StatusCode, limit: usize) -> ApiError {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        ApiError::TooLarge { limit }
    } else {
        ApiError::UnreadableBody
    }
}
