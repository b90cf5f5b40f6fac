"""The HTTP server: OpenAI's API over the engine, predictions, and prompts that come and go."""
