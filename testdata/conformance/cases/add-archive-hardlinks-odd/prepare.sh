python3 mk.py; rm mk.py
