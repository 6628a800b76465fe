// What postal-mime expects of its host, for the engine that the tests run it in: encodings, Blob, require.
globalThis.TextEncoder = class {
    encode(text) {
        return Uint8Array.from(unescape(encodeURIComponent(text)), char => char.charCodeAt(0));
    }
};
globalThis.TextDecoder = class {
    constructor(charset = 'utf-8') {
        if (!/^(utf-?8|us-ascii|ascii)$/i.test(charset)) throw new RangeError('no such encoding: ' + charset);
    }
    decode(bytes) {
        const octets = ArrayBuffer.isView(bytes)
            ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
            : new Uint8Array(bytes ?? 0);
        // Throws at a cut character, where a browser would put a mark of replacement.
        return decodeURIComponent(Array.from(octets, octet => '%' + octet.toString(16).padStart(2, '0')).join(''));
    }
};
globalThis.Blob = class {
    constructor(parts) {
        this.octets = parts.flatMap(part => Array.from(new Uint8Array(part.buffer ?? part)));
    }
    async arrayBuffer() {
        return Uint8Array.from(this.octets).buffer;
    }
};
globalThis.modules = {};
globalThis.require = path => {
    const name = path.replace(/^\.\/|\.js$/g, '');
    if (!modules[name]) {
        const module = { exports: {} };
        modules[name] = module.exports;
        new Function('exports', 'require', 'module', sources[name]).call({}, module.exports, require, module);
        modules[name] = module.exports;
    }
    return modules[name];
};
globalThis.parse = hex => {
    globalThis.outcome = undefined;
    const octets = Uint8Array.from(hex.match(/../g), pair => parseInt(pair, 16));
    require('./postal-mime.js').default.parse(octets).then(
        mail => { outcome = JSON.stringify({ mail }); },
        error => { outcome = JSON.stringify({ error: String(error) }); },
    );
};
