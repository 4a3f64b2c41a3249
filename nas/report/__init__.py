"""What a store has to say, for people and for programs: tables, pictures, a page, a dashboard.

In: a store and its files, nothing else. Out: text, figures, a folder, a server. Nothing here
imports torch; matplotlib and jinja2 (extra `report`) and optuna-dashboard (extra `dashboard`) are
imported where they are used.
"""
