"""The documentation site: `python -m docs.site` (make docs) builds build/site from docs/, docstrings and the options.

stage      copies the documents to build/docs, where links to other files of the repository become links to their pages
commands   one page per command and recipe, from the command line's own parsers
api        one page for `import llamarm`, and one per folder of the packages, for mkdocstrings
links      checks the built pages: every link leads somewhere, and nothing is loaded from another host
"""
