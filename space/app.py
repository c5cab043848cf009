"""The page of hdzoo as a Hugging Face Space."""

from threading import Event

from hdzoo.app.page import serve

if __name__ == "__main__":
    serve(host="0.0.0.0", port=7860)
    Event().wait()
