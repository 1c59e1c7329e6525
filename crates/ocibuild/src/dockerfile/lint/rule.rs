//! The rules: names, descriptions and addresses are those of BuildKit's build checks,
//! so that `# check=skip=` and tools that read results find what they know.

macro_rules! rules {
    ($($name:ident: $description:literal),+ $(,)?) => {
        /// A build check (docs.docker.com/reference/build-checks).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $description] $name),+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Gives the name, by which a file can switch the rule off.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// Says in a sentence what the rule asks for.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $description),+ }
            }
        }
    };
}

rules! {
    StageNameCasing: "Stage names should be lowercase",
    FromAsCasing: "The 'as' keyword should match the case of the 'from' keyword",
    NoEmptyContinuation: "Empty continuation lines will become errors in a future release",
    ConsistentInstructionCasing:
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    DuplicateStageName: "Stage names should be unique",
    ReservedStageName: "Reserved words should not be used as stage names",
    JSONArgsRecommended: "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    MaintainerDeprecated:
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    UndefinedArgInFrom: "FROM command must use declared ARGs",
    WorkdirRelativePath: "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    UndefinedVar: "Variables should be defined before their use",
    MultipleInstructionsDisallowed:
        "Multiple instructions of the same type should not be used in the same stage",
    LegacyKeyValueFormat: "Legacy key/value format with whitespace separator should not be used",
    InvalidBaseImagePlatform: "Base image platform does not match expected target platform",
    RedundantTargetPlatform: "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    SecretsUsedInArgOrEnv: "Sensitive data should not be used in the ARG or ENV commands",
    InvalidDefaultArgInFrom:
        "Default value for global ARG results in an empty or invalid base image name",
    FromPlatformFlagConstDisallowed: "FROM --platform flag should not use a constant value",
    CopyIgnoredFile: "Attempting to Copy file that is excluded by .dockerignore",
    InvalidDefinitionDescription: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    ExposeProtoCasing: "Protocol in EXPOSE instruction should be lowercase",
    ExposeInvalidFormat: "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
}

impl Rule {
    /// Finds a rule by its name, in upper or lower case.
    pub fn parse(name: &str) -> Option<Self> {
        let found = Self::ALL
            .iter()
            .find(|rule| rule.name().eq_ignore_ascii_case(name));
        found.copied()
    }

    /// Tells whether the rule only counts where a file asks for it
    /// (`# check=experimental=`).
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    /// Gives the address of the rule's documentation, where it has one.
    pub fn url(self) -> Option<String> {
        (self != Self::InvalidBaseImagePlatform).then(|| {
            let page = kebab(self.name());
            format!("https://docs.docker.com/go/dockerfile/rule/{page}/")
        })
    }
}

/// Parts a name before each word: `JSONArgs` becomes `json-args`.
fn kebab(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut kebab = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let is_lower = |at: Option<usize>| {
            at.and_then(|at| letters.get(at))
                .is_some_and(char::is_ascii_lowercase)
        };
        let begins = is_lower(at.checked_sub(1)) || is_lower(Some(at + 1));
        if at > 0 && letter.is_ascii_uppercase() && begins {
            kebab.push('-');
        }
        kebab.push(letter.to_ascii_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_22_rules_have_names_and_pages() {
        assert_eq!(Rule::ALL.len(), 22);
        let page = |rule: Rule| rule.url().unwrap();
        let base = "https://docs.docker.com/go/dockerfile/rule/";
        for (rule, want) in [
            (Rule::JSONArgsRecommended, "json-args-recommended"),
            (Rule::UndefinedArgInFrom, "undefined-arg-in-from"),
            (Rule::SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env"),
            (Rule::FromAsCasing, "from-as-casing"),
        ] {
            assert_eq!(page(rule), format!("{base}{want}/"));
        }
        assert_eq!(Rule::InvalidBaseImagePlatform.url(), None);
        assert_eq!(Rule::parse("undefinedvar"), Some(Rule::UndefinedVar));
    }
}
