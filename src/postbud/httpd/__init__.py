"""The sending API: stage 1 of the journey over HTTP. Speaks HTTP and JSON; who may send what is the gate's to say."""
