"""Programs: the language, what programs mean, and the mixture over every one of up to L bits."""
