"""Prompts of Foreword served from vLLM: a connector, and a middleware that knows them by name."""
