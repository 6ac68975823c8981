"""The edge towards people: notices go out by mail, by a command or over HTTP; nothing comes in."""
